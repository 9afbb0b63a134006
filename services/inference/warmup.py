"""Ray Data's first dataset starts actors, processes and imports; better at start than under the first job."""

import pyarrow as pa

from services.inference import slices

__all__ = ["warm_ray_data"]


def warm_ray_data() -> None:
    """Run a dataset of one row."""
    import ray.data

    dataset = ray.data.from_arrow(slices.pack(pa.table({"row": [0]}))).map_batches(
        _same, batch_size=None, batch_format="pyarrow", zero_copy_batch=True
    )
    for _ in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        pass


def _same(block: pa.Table) -> pa.Table:
    # What every engine call needs is imported by the time the first one comes.
    from services.inference import chunk, source

    _ = chunk, source
    return block

"""Proof, from the object store alone, that each row of a job was answered once and nothing was changed or made up."""

from tidemill.verify.report import Fault, Finding, Report
from tidemill.verify.run import Expected, verify

__all__ = ["Expected", "Fault", "Finding", "Report", "verify"]

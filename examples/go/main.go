// Submits three prompts, waits for the job and prints its answers, with stubs that protoc-gen-go and
// protoc-gen-go-grpc generated from protos/; docs/other-clients.md says how.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "tidemill.dev/gen/v1"
)

// codec takes the place of the one in gRPC before 1.35, which does not know messages of today's generator.
type codec struct{}

func (codec) Name() string                          { return "proto" }
func (codec) Marshal(v interface{}) ([]byte, error) { return proto.Marshal(v.(proto.Message)) }
func (codec) Unmarshal(data []byte, v interface{}) error {
	return proto.Unmarshal(data, v.(proto.Message))
}

func init() { encoding.RegisterCodec(codec{}) }

func main() {
	address, key, model := os.Getenv("TIDEMILL_ADDRESS"), os.Getenv("TIDEMILL_API_KEY"), os.Args[1]
	connection, err := grpc.Dial(address, grpc.WithInsecure())
	check(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
	jobs := pb.NewJobServiceClient(connection)

	job := submit(ctx, jobs, model)
	watch(ctx, jobs, job.Name)
	read(ctx, jobs, job.Name)
}

func submit(ctx context.Context, jobs pb.JobServiceClient, model string) *pb.Job {
	stream, err := jobs.SubmitJob(ctx)
	check(err)
	tokens := int32(8)
	job := &pb.Job{
		Model:            model,
		CompletionWindow: durationpb.New(2 * time.Hour),
		Sampling:         &pb.SamplingParams{MaxTokens: &tokens},
	}
	check(stream.Send(&pb.SubmitJobRequest{Create: &pb.CreateJobRequest{Job: job}}))
	for i := 0; i < 3; i++ {
		row := &pb.Row{CustomId: fmt.Sprint("row-", i), Input: &pb.Row_Prompt{Prompt: fmt.Sprint("Question ", i)}}
		check(stream.Send(&pb.SubmitJobRequest{Rows: []*pb.Row{row}}))
	}
	sealed, err := stream.CloseAndRecv()
	check(err)
	return sealed
}

func watch(ctx context.Context, jobs pb.JobServiceClient, name string) {
	stream, err := jobs.WatchJob(ctx, &pb.WatchJobRequest{Name: name})
	check(err)
	for {
		update, err := stream.Recv()
		if err == io.EOF {
			return
		}
		check(err)
		if update.Job != nil {
			fmt.Fprintln(os.Stderr, update.Job.State)
		}
	}
}

func read(ctx context.Context, jobs pb.JobServiceClient, name string) {
	stream, err := jobs.ReadResults(ctx, &pb.ReadResultsRequest{Name: name})
	check(err)
	for {
		frame, err := stream.Recv()
		if err == io.EOF {
			return
		}
		check(err)
		for _, result := range frame.Results {
			fmt.Printf("%s %s %q\n", result.CustomId, result.Status, result.Text)
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

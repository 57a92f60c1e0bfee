// Checks of franz-go against one broker. Usage: battery BOOTSTRAP [survive]. Prints a line for each check: its name,
// a tab, and "ok" or what went wrong. The client's own test suite covers far more; this is what it leaves to others.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	bootstrap string
	run       = fmt.Sprintf("%x", time.Now().UnixNano())
)

func name(stem string) string { return strings.ReplaceAll(stem, " ", "-") + "-" + run }

func client(opts ...kgo.Opt) *kgo.Client {
	all := append([]kgo.Opt{kgo.SeedBrokers(bootstrap), kgo.RetryTimeout(60 * time.Second)}, opts...)
	cl, err := kgo.NewClient(all...)
	if err != nil {
		panic(err)
	}
	return cl
}

func topic(ctx context.Context, stem string, partitions int32) (string, error) {
	cl := client()
	defer cl.Close()
	req := kmsg.NewCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name(stem), partitions, 1
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err == nil && resp.Topics[0].ErrorCode != 0 {
		err = fmt.Errorf("create topic: error %d", resp.Topics[0].ErrorCode)
	}
	return t.Topic, err
}

func numbered(from, to int) []string {
	var values []string
	for i := from; i < to; i++ {
		values = append(values, fmt.Sprintf("value %d", i))
	}
	return values
}

func fill(ctx context.Context, topic string, count int, opts ...kgo.Opt) error {
	cl := client(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topic))...)
	defer cl.Close()
	var records []*kgo.Record
	for _, value := range numbered(0, count) {
		records = append(records, kgo.StringRecord(value))
	}
	return cl.ProduceSync(ctx, records...).FirstErr()
}

func read(ctx context.Context, cl *kgo.Client, count int) ([]*kgo.Record, error) {
	var found []*kgo.Record
	for len(found) < count {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return found, fmt.Errorf("%d of %d records: %w", len(found), count, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { found = append(found, r) })
	}
	return found, nil
}

func expect(wanted, found any) error {
	if !reflect.DeepEqual(wanted, found) {
		return fmt.Errorf("expected %.300v, found %.300v", wanted, found)
	}
	return nil
}

func values(records []*kgo.Record) []string {
	var found []string
	for _, r := range records {
		found = append(found, string(r.Value))
	}
	return found
}

func roundTrip(ctx context.Context, stem string, opts ...kgo.Opt) error {
	to, err := topic(ctx, stem, 1)
	if err != nil {
		return err
	}
	if err := fill(ctx, to, 1000, opts...); err != nil {
		return err
	}
	cl := client(kgo.ConsumeTopics(to))
	defer cl.Close()
	records, err := read(ctx, cl, 1000)
	return errors.Join(err, expect(numbered(0, 1000), values(records)))
}

func headers(ctx context.Context) error {
	to, err := topic(ctx, "headers", 1)
	if err != nil {
		return err
	}
	cl := client(kgo.ConsumeTopics(to))
	defer cl.Close()
	at := time.UnixMilli(1_700_000_000_123)
	sent := &kgo.Record{Topic: to, Key: []byte("k"), Timestamp: at, Headers: []kgo.RecordHeader{{Key: "a", Value: []byte{0}}, {Key: "a"}}}
	if err := cl.ProduceSync(ctx, sent).FirstErr(); err != nil {
		return err
	}
	records, err := read(ctx, cl, 1)
	if err != nil {
		return err
	}
	got := records[0]
	return errors.Join(expect("k", string(got.Key)), expect(true, got.Value == nil), expect(at.UnixMilli(), got.Timestamp.UnixMilli()), expect(2, len(got.Headers)))
}

func seeking(ctx context.Context) error {
	to, err := topic(ctx, "seek", 1)
	if err != nil {
		return err
	}
	cl := client(kgo.DefaultProduceTopic(to))
	defer cl.Close()
	for i, value := range numbered(0, 10) {
		r := kgo.StringRecord(value)
		r.Timestamp = time.UnixMilli(1_700_000_000_000 + int64(1000*i))
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		from  kgo.Offset
		first int
	}{
		{kgo.NewOffset().At(6), 6},
		{kgo.NewOffset().AtStart(), 0},
		{kgo.NewOffset().AtEnd().Relative(-2), 8},
		{kgo.NewOffset().AfterMilli(1_700_000_003_500), 4},
	} {
		reader := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{to: {0: c.from}}))
		records, err := read(ctx, reader, 10-c.first)
		reader.Close()
		if err := errors.Join(err, expect(numbered(c.first, 10), values(records))); err != nil {
			return err
		}
	}
	return nil
}

func resume(ctx context.Context) error {
	to, err := topic(ctx, "resume", 1)
	if err != nil {
		return err
	}
	if err := fill(ctx, to, 10); err != nil {
		return err
	}
	opts := []kgo.Opt{kgo.ConsumeTopics(to), kgo.ConsumerGroup(name("resuming")), kgo.DisableAutoCommit()}
	first := client(opts...)
	records, err := read(ctx, first, 10)
	if err == nil {
		err = first.CommitRecords(ctx, records[3])
	}
	first.Close()
	if err != nil {
		return err
	}
	second := client(opts...)
	defer second.Close()
	records, err = read(ctx, second, 6)
	return errors.Join(err, expect(numbered(4, 10), values(records)))
}

// survive produces and consumes while somebody kills the broker and starts it again, on the word "now".
func survive(ctx context.Context) error {
	const count = 20000
	to, err := topic(ctx, "killed", 1)
	if err != nil {
		return err
	}
	reader := client(kgo.ConsumeTopics(to), kgo.ConsumerGroup(name("surviving")))
	defer reader.Close()
	writer := client(kgo.DefaultProduceTopic(to), kgo.RecordDeliveryTimeout(60*time.Second))
	defer writer.Close()
	done := make(chan error, count)
	for i, value := range numbered(0, count) {
		writer.Produce(ctx, kgo.StringRecord(value), func(_ *kgo.Record, err error) { done <- err })
		if i == count/4 {
			if err := writer.Flush(ctx); err != nil {
				return err
			}
			fmt.Println("now")
		}
		if i%10 == 0 {
			time.Sleep(2 * time.Millisecond)
		}
	}
	for range count {
		if err := <-done; err != nil {
			return err
		}
	}
	records, err := read(ctx, reader, count)
	return errors.Join(err, expect(numbered(0, count), values(records)))
}

func report(check string, test func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	outcome := "ok"
	if err := test(ctx); err != nil {
		outcome = strings.Join(strings.Fields(err.Error()), " ")
	}
	fmt.Printf("%s\t%s\n", check, outcome)
}

func main() {
	bootstrap = os.Args[1]
	if len(os.Args) > 2 {
		report("survives a kill", survive)
		return
	}
	for _, codec := range []struct {
		name   string
		option kgo.CompressionCodec
	}{
		{"none", kgo.NoCompression()},
		{"gzip", kgo.GzipCompression()},
		{"snappy", kgo.SnappyCompression()},
		{"lz4", kgo.Lz4Compression()},
		{"zstd", kgo.ZstdCompression()},
	} {
		report("round trip "+codec.name, func(ctx context.Context) error {
			return roundTrip(ctx, "codec "+codec.name, kgo.ProducerBatchCompression(codec.option))
		})
	}
	report("acks 0", func(ctx context.Context) error {
		return roundTrip(ctx, "acks 0", kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	})
	report("acks 1", func(ctx context.Context) error {
		return roundTrip(ctx, "acks 1", kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	})
	report("keys, headers and timestamps", headers)
	report("offsets and seeking", seeking)
	report("commit and resume", resume)
}

import java.time.Duration;
import java.util.*;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.*;

/**
 * Transactions of the Java producer against one broker. Usage: Transactions BOOTSTRAP, or Transactions BOOTSTRAP survive:
 * then the broker is to be killed and started again at each "now". Prints lines as {@link Battery} does.
 */
public final class Transactions {
    private static final int SIZE = 5;

    public static void main(String[] args) throws Exception {
        Battery.connect(args[0]);
        if (args.length > 1) {
            Battery.report("survives a kill", Transactions::survive);
        } else {
            Battery.report("commit and abort", Transactions::commitAndAbort);
            Battery.report("many partitions", Transactions::manyPartitions);
            Battery.report("open transactions are waited for", Transactions::open);
            Battery.report("fencing", Transactions::fencing);
            Battery.report("consume, transform, produce", Transactions::consumeTransformProduce);
            Battery.report("members of the past cannot commit", Transactions::fencedMember);
            Battery.report("pending offsets are unstable", Transactions::unstable);
        }
        System.exit(0);
    }

    private static Producer<String, String> transactional(String id) {
        Producer<String, String> producer = Battery.producer(
            "transactional.id", id, "transaction.timeout.ms", 30_000, "reconnect.backoff.max.ms", 500,
            "delivery.timeout.ms", 60_000, "max.block.ms", 60_000);
        producer.initTransactions();
        return producer;
    }

    private static void write(Producer<String, String> producer, String topic, int partition, List<String> values, boolean commits) {
        producer.beginTransaction();
        values.forEach(value -> producer.send(new ProducerRecord<>(topic, partition, null, value)));
        producer.flush();
        if (commits) producer.commitTransaction();
        else producer.abortTransaction();
    }

    /** All that a reader finds up to the end that it is shown, in the order of the partitions. */
    private static List<String> readAll(String topic, int partitions, String isolation) {
        List<TopicPartition> all = IntStream.range(0, partitions).mapToObj(p -> new TopicPartition(topic, p)).toList();
        Map<Integer, List<String>> found = new TreeMap<>();
        try (Consumer<String, String> consumer = Battery.consumer(Battery.name("reader"), "isolation.level", isolation)) {
            consumer.assign(all);
            consumer.seekToBeginning(all);
            long deadline = System.nanoTime() + Battery.PATIENCE.toNanos();
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            while (all.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                if (System.nanoTime() > deadline) throw new AssertionError("no end of " + topic);
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100)))
                    found.computeIfAbsent(record.partition(), p -> new ArrayList<>()).add(record.value());
            }
        }
        return found.values().stream().flatMap(List::stream).toList();
    }

    private static void commitAndAbort() throws Exception {
        String topic = Battery.topic("transactions", 1);
        try (Producer<String, String> producer = transactional(Battery.name("tx"))) {
            write(producer, topic, 0, List.of("a", "b"), true);
            write(producer, topic, 0, List.of("lost", "too"), false);
            write(producer, topic, 0, List.of("c"), true);
            producer.beginTransaction();
            producer.commitTransaction(); // empty
        }
        Battery.expect(List.of("a", "b", "c"), readAll(topic, 1, "read_committed"));
        Battery.expect(List.of("a", "b", "lost", "too", "c"), readAll(topic, 1, "read_uncommitted"));
    }

    private static void manyPartitions() throws Exception {
        String topic = Battery.topic("wide", 20);
        List<String> wanted = new ArrayList<>();
        try (Producer<String, String> producer = transactional(Battery.name("wide"))) {
            for (int round = 0; round < 10; round++) {
                producer.beginTransaction();
                for (int p = 0; p < 20; p++) producer.send(new ProducerRecord<>(topic, p, null, p + "/" + round));
                if (round % 3 == 2) producer.abortTransaction();
                else producer.commitTransaction();
            }
        }
        for (int p = 0; p < 20; p++)
            for (int round = 0; round < 10; round++)
                if (round % 3 != 2) wanted.add(p + "/" + round);
        Battery.expect(wanted, readAll(topic, 20, "read_committed"));
    }

    private static void open() throws Exception {
        String topic = Battery.topic("open", 1);
        try (Producer<String, String> one = transactional(Battery.name("one")); Producer<String, String> other = transactional(Battery.name("other"))) {
            one.beginTransaction();
            one.send(new ProducerRecord<>(topic, "first")).get();
            write(other, topic, 0, List.of("second"), true);
            try (Consumer<String, String> consumer = Battery.consumer(Battery.name("waiting"), "isolation.level", "read_committed")) {
                consumer.assign(List.of(new TopicPartition(topic, 0)));
                Battery.expect(0, consumer.poll(Duration.ofSeconds(1)).count());
                one.commitTransaction();
                Battery.expect(List.of("first", "second"), Battery.values(Battery.poll(consumer, 2)));
            }
        }
    }

    private static void fencing() throws Exception {
        String topic = Battery.topic("fenced", 1), id = Battery.name("fenced");
        try (Producer<String, String> before = transactional(id)) {
            before.beginTransaction();
            before.send(new ProducerRecord<>(topic, "of the first")).get();
            try (Producer<String, String> after = transactional(id)) {
                write(after, topic, 0, List.of("of the second"), true);
                // What it had open was aborted, and where it has written its epoch is known to be of the past.
                Battery.expectError(InvalidProducerEpochException.class, () -> before.send(new ProducerRecord<>(topic, "late")).get());
                Battery.expectError(InvalidProducerEpochException.class, before::commitTransaction);
            }
        }
        Battery.expect(List.of("of the second"), readAll(topic, 1, "read_committed"));
    }

    private static Map<TopicPartition, OffsetAndMetadata> positions(Consumer<String, String> consumer) {
        Map<TopicPartition, OffsetAndMetadata> found = new HashMap<>();
        for (TopicPartition partition : consumer.assignment()) found.put(partition, new OffsetAndMetadata(consumer.position(partition)));
        return found;
    }

    private static void consumeTransformProduce() throws Exception {
        String source = Battery.topic("source", 2), target = Battery.topic("target", 1), group = Battery.name("transforming");
        Battery.fill(source, 200, 2);
        Set<String> wanted = new TreeSet<>();
        for (int i = 0; i < 200; i++) wanted.add("VALUE " + i);
        try (Producer<String, String> producer = transactional(Battery.name("transform"));
             Consumer<String, String> consumer = Battery.consumer(group, "isolation.level", "read_committed", "max.poll.records", 10)) {
            consumer.subscribe(List.of(source));
            for (int done = 0, rounds = 0; done < 200; rounds++) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(500));
                if (records.isEmpty()) continue;
                producer.beginTransaction();
                records.forEach(record -> producer.send(new ProducerRecord<>(target, record.value().toUpperCase())));
                producer.sendOffsetsToTransaction(positions(consumer), consumer.groupMetadata());
                if (rounds % 3 == 2) {
                    producer.abortTransaction();
                    Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(consumer.assignment());
                    consumer.assignment().forEach(p -> consumer.seek(p, committed.get(p) == null ? 0 : committed.get(p).offset()));
                } else {
                    producer.commitTransaction();
                    done += records.count();
                }
            }
            long behind = consumer.committed(consumer.assignment()).values().stream().mapToLong(OffsetAndMetadata::offset).sum();
            Battery.expect(200L, behind);
        }
        List<String> seen = readAll(target, 1, "read_committed");
        Battery.expect(200, seen.size());
        Battery.expect(wanted, new TreeSet<>(seen));
    }

    private static void fencedMember() throws Exception {
        String topic = Battery.topic("zombie", 1), group = Battery.name("zombie");
        Battery.fill(topic, 10, 1);
        try (Producer<String, String> producer = transactional(Battery.name("zombie"))) {
            ConsumerGroupMetadata past;
            try (Consumer<String, String> consumer = Battery.consumer(group)) {
                consumer.subscribe(List.of(topic));
                Battery.poll(consumer, 1);
                past = consumer.groupMetadata();
            }
            try (Consumer<String, String> consumer = Battery.consumer(group)) {
                consumer.subscribe(List.of(topic));
                Battery.poll(consumer, 1);
                producer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> offsets = Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(7));
                Battery.expectError(CommitFailedException.class, () -> producer.sendOffsetsToTransaction(offsets, past));
                producer.abortTransaction();
                producer.beginTransaction();
                producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                producer.commitTransaction();
                Battery.expect(7L, consumer.committed(offsets.keySet()).get(new TopicPartition(topic, 0)).offset());
            }
        }
    }

    /** A consumer that asks for its committed offsets waits until the transaction that may change them has ended. */
    private static void unstable() throws Exception {
        String topic = Battery.topic("unstable", 1), group = Battery.name("unstable");
        TopicPartition partition = new TopicPartition(topic, 0);
        try (Producer<String, String> producer = transactional(Battery.name("unstable"));
             Consumer<String, String> consumer = Battery.consumer(group, "isolation.level", "read_committed")) {
            producer.beginTransaction();
            producer.sendOffsetsToTransaction(Map.of(partition, new OffsetAndMetadata(3)), new ConsumerGroupMetadata(group));
            try {
                consumer.committed(Set.of(partition), Duration.ofSeconds(1));
                throw new AssertionError("an offset that is not decided was told");
            } catch (TimeoutException expected) {
                // as it should be
            }
            producer.commitTransaction();
            Battery.expect(3L, consumer.committed(Set.of(partition), Battery.PATIENCE).get(partition).offset());
        }
    }

    private static void survive() throws Exception {
        String topic = Battery.topic("killed", 1), id = Battery.name("killed");
        Set<Integer> committed = new HashSet<>(), aborted = new HashSet<>(), unknown = new HashSet<>();
        Producer<String, String> producer = transactional(id);
        for (int number = 0; number < 60; number++) {
            boolean aborts = number % 4 == 1;
            try {
                producer.beginTransaction();
                for (int record = 0; record < SIZE; record++) {
                    producer.send(new ProducerRecord<>(topic, number + "-" + record));
                    if (number % 20 == 10 && record == 2) {
                        producer.flush();
                        System.out.println("now");
                        System.out.flush();
                        Thread.sleep(200);
                    }
                }
                if (aborts) {
                    producer.flush();
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
                (aborts ? aborted : committed).add(number);
            } catch (KafkaException error) {
                (aborts ? aborted : unknown).add(number);
                try {
                    producer.abortTransaction();
                } catch (KafkaException fatal) {
                    producer.close(Duration.ZERO);
                    producer = transactional(id);
                }
            }
        }
        producer.close();
        Map<Integer, Integer> seen = new HashMap<>();
        List<String> values = readAll(topic, 1, "read_committed");
        values.forEach(value -> seen.merge(Integer.parseInt(value.split("-")[0]), 1, Integer::sum));
        Battery.expect(values.size(), new HashSet<>(values).size());
        committed.forEach(number -> Battery.expect(number + ": " + SIZE, number + ": " + seen.get(number)));
        aborted.forEach(number -> Battery.expect(number + ": null", number + ": " + seen.get(number)));
        unknown.forEach(number -> Battery.expect(true, seen.get(number) == null || seen.get(number) == SIZE));
        if (unknown.size() > 6) throw new AssertionError(unknown.size() + " transactions of which nobody knows");
    }

    private Transactions() {}
}

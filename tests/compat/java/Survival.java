import java.time.Duration;
import java.util.*;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;

/** A producer and a group at work while somebody kills the broker and starts it again, on the word "now". */
final class Survival {
    private static final int COUNT = 20_000;

    /** Runs with a consumer that has these settings beside the usual ones. */
    static void run(Object... consumerSettings) throws Exception {
        String topic = Battery.topic("killed", 1), group = Battery.name("surviving");
        Queue<Object> outcomes = new ConcurrentLinkedQueue<>();
        List<String> seen = new ArrayList<>();
        Object[] settings = {"delivery.timeout.ms", 60_000, "reconnect.backoff.max.ms", 500};
        try (Producer<String, String> producer = Battery.producer(settings);
             Consumer<String, String> consumer = Battery.consumer(group, with(consumerSettings, "reconnect.backoff.max.ms", 500))) {
            consumer.subscribe(List.of(topic));
            for (int i = 0; i < COUNT; i++) {
                String value = "value " + i;
                producer.send(new ProducerRecord<>(topic, 0, "k", value), (metadata, error) -> outcomes.add(error == null ? value : error));
                if (i == COUNT / 4) {
                    producer.flush();
                    seen.addAll(Battery.values(Battery.poll(consumer, 100)));
                    consumer.commitSync();
                    System.out.println("now");
                    System.out.flush();
                }
                if (i % 10 == 0) Thread.sleep(2);
            }
            producer.flush();
            long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
            while (seen.size() < COUNT && System.nanoTime() < deadline)
                consumer.poll(Duration.ofMillis(100)).forEach(record -> seen.add(record.value()));
            consumer.commitSync();
        }
        Battery.expect(Battery.numbered(0, COUNT), new ArrayList<>(outcomes));
        Battery.expect(Battery.numbered(0, COUNT), seen);
    }

    private static Object[] with(Object[] settings, Object... more) {
        List<Object> all = new ArrayList<>(Arrays.asList(settings));
        all.addAll(Arrays.asList(more));
        return all.toArray();
    }

    private Survival() {}
}

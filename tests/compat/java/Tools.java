import java.io.*;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Apache Kafka's command-line tools one after the other in one JVM. Reads commands from standard input, each a
 * line of base64 fields: class, standard input, arguments. Answers with a line of base64 fields: exit status, standard
 * output, standard error.
 */
public final class Tools {
    /** Ends a tool where it asked for the end of the process. */
    static final class Exited extends Error {
        Exited() {
            super(null, null, false, false);
        }
    }

    /** The status of the first exit: tools that catch everything exit once more, unhappily. */
    private static Integer status;

    private static void exit(int wanted, String message) {
        if (message != null) System.err.println(message);
        if (status == null) status = wanted;
        throw new Exited();
    }

    public static void main(String[] args) throws Exception {
        PrintStream answers = System.out;
        PrintStream log = System.err;
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        Exit.setExitProcedure(Tools::exit);
        Exit.setHaltProcedure(Tools::exit);
        List<Runnable> hooks = new ArrayList<>();
        Exit.setShutdownHookAdder((name, hook) -> hooks.add(hook));
        for (String line; (line = commands.readLine()) != null; ) {
            List<String> fields = new ArrayList<>();
            for (String field : line.split(" ", -1)) fields.add(new String(Base64.getDecoder().decode(field), StandardCharsets.UTF_8));
            ByteArrayOutputStream out = new ByteArrayOutputStream(), err = new ByteArrayOutputStream();
            System.setIn(new ByteArrayInputStream(fields.get(1).getBytes(StandardCharsets.UTF_8)));
            System.setOut(new PrintStream(out, true, StandardCharsets.UTF_8));
            System.setErr(new PrintStream(err, true, StandardCharsets.UTF_8));
            status = null;
            try {
                String[] arguments = fields.subList(2, fields.size()).toArray(new String[0]);
                Class.forName(fields.get(0)).getMethod("main", String[].class).invoke(null, (Object) arguments);
            } catch (InvocationTargetException error) {
                if (!(error.getCause() instanceof Exited)) {
                    error.getCause().printStackTrace();
                    if (status == null) status = 1;
                }
            }
            hooks.forEach(Runnable::run);
            hooks.clear();
            System.out.flush();
            System.setErr(log);
            Base64.Encoder encoder = Base64.getEncoder();
            answers.println((status == null ? 0 : status) + " " + encoder.encodeToString(out.toByteArray()) + " " + encoder.encodeToString(err.toByteArray()));
            answers.flush();
        }
        Runtime.getRuntime().halt(0);
    }
}

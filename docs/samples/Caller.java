import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.UUID;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A platform that asks before it creates a user.
 *
 *     GATEPOST_URL=http://127.0.0.1:8080 GATEPOST_KEY=gp_… java Caller.java acme ada
 *
 * Uses the JDK alone; take your JSON library for {@link #member}.
 */
public final class Caller {
    private static final String URL = System.getenv("GATEPOST_URL");
    private static final String KEY = System.getenv("GATEPOST_KEY");
    private static final int BUDGET_MS = 800;
    private static final HttpClient HTTP = HttpClient.newHttpClient();

    private static HttpResponse<String> post(String path, String body, String... headers)
            throws IOException, InterruptedException {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(URL + "/v1/tenants/" + path))
                // A little more than the budget: Gatepost answers within it.
                .timeout(Duration.ofMillis(BUDGET_MS + 200))
                .header("authorization", "Bearer " + KEY)
                .header("content-type", "application/json")
                .POST(BodyPublishers.ofString(body));
        if (headers.length > 0) {
            request.headers(headers);
        }
        return HTTP.send(request.build(), BodyHandlers.ofString());
    }

    /** The decision; null when Gatepost was not there. */
    private static String ask(String tenant, String login) throws InterruptedException {
        String question = "{\"subject\":{\"type\":\"user\",\"id\":\"" + login + "\"},"
                + "\"object\":{\"user\":{\"login\":\"" + login + "\"}}}";
        // The same key at the repetition: the same decision, and nobody is asked twice.
        String[] headers = {"gatepost-timeout-ms", "" + BUDGET_MS, "idempotency-key", UUID.randomUUID().toString()};
        for (int attempt = 1; attempt <= 2; attempt++) {
            try {
                HttpResponse<String> answer = post(tenant + "/operations/createUser/invoke", question, headers);
                int status = answer.statusCode();
                // A 503 with a decision was made without the receivers: a no stays a no.
                if (status == 200 || status == 503 && member(answer.body(), "decision") != null) {
                    return answer.body();
                }
                if (status < 500 && status != 429) {
                    throw new IllegalStateException(answer.body()); // our own mistake
                }
                return null;
            } catch (IOException broken) {
                // once more
            }
        }
        return null;
    }

    /** A text member of the answer. */
    private static String member(String json, String name) {
        Matcher found = Pattern.compile("\"" + name + "\":\"([^\"]*)\"").matcher(json);
        return found.find() ? found.group(1) : null;
    }

    public static void main(String[] args) throws Exception {
        String tenant = args[0];
        String login = args[1];
        String decision = ask(tenant, login);
        // Your own policy for when Gatepost is not there: here, no.
        if (decision == null || !"allow".equals(member(decision, "decision"))) {
            System.err.println("refused: " + (decision == null ? "try again later" : member(decision, "code")));
            System.exit(1);
        }
        System.out.println("created " + login); // as the decision's object says
        String id = member(decision, "id");
        post(tenant + "/invocations/" + id + "/outcome", "{\"committed\":true,\"uid\":\"" + login + "\"}");
    }
}

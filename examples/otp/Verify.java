// Verify a phone from Java 17 or later: WATCHWORD_API=https://login.example.com WATCHWORD_API_KEY=otp_… java Verify.java +12025550143

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.Scanner;
import java.util.UUID;
import java.util.regex.Pattern;

public class Verify {
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    static String call(String path, String body) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(System.getenv("WATCHWORD_API") + path))
            .header("X-API-Key", System.getenv("WATCHWORD_API_KEY"))
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", UUID.randomUUID().toString()) // repeat a request with its key: it is done once
            .POST(HttpRequest.BodyPublishers.ofString(body)).build();
        var answer = CLIENT.send(request, HttpResponse.BodyHandlers.ofString(StandardCharsets.UTF_8));
        if (answer.statusCode() >= 400) {
            throw new RuntimeException(field(answer.body(), "code") + ": " + field(answer.body(), "detail")); // decide by code
        }
        return answer.body();
    }

    // A member of a flat object. Your program has a library for JSON.
    static String field(String json, String name) {
        var found = Pattern.compile("\"" + name + "\":\"?([^\",}]*)").matcher(json);
        return found.find() ? found.group(1) : "";
    }

    // A string as JSON writes it.
    static String quote(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    public static void main(String[] args) throws Exception {
        var out = new java.io.PrintStream(System.out, true, StandardCharsets.UTF_8);
        var sent = call("/v1/verifications", "{\"to\": " + quote(args[0]) + ", \"purpose\": \"sign_up\"}");
        out.println("Sent to " + field(sent, "to"));
        var typed = new Scanner(System.in);
        while (typed.hasNextLine()) {
            var result = call("/v1/verifications/" + field(sent, "id") + "/check", "{\"code\": " + quote(typed.nextLine().strip()) + "}");
            if (field(result, "valid").equals("true")) {
                out.println("Verified");
                return;
            }
            out.println("Wrong code, attempts left: " + field(result, "attempts_left"));
        }
        System.exit(1);
    }
}

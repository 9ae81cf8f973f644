<?php
// Verify a phone from PHP 8 or later: WATCHWORD_API=https://login.example.com WATCHWORD_API_KEY=otp_… php verify.php +12025550143

function call(string $path, array $body, ?string $key = null): array
{
    $answer = file_get_contents(getenv('WATCHWORD_API') . $path, false, stream_context_create(['http' => [
        'method' => 'POST',
        'header' => [
            'X-API-Key: ' . getenv('WATCHWORD_API_KEY'),
            'Content-Type: application/json',
            'Idempotency-Key: ' . ($key ?? bin2hex(random_bytes(16))), // repeat a request with its key: it is done once
        ],
        'content' => json_encode($body),
        'ignore_errors' => true, // they have a body
        'timeout' => 15,
    ]]));
    $result = json_decode((string) $answer, true, 16, JSON_THROW_ON_ERROR);
    if (isset($result['code'])) {
        fwrite(STDERR, "{$result['code']}: {$result['detail']}\n"); // decide by code
        exit(1);
    }
    return $result;
}

$sent = call('/v1/verifications', ['to' => $argv[1], 'purpose' => 'sign_up']);
echo "Sent to {$sent['to']}\n";
while (($line = fgets(STDIN)) !== false) {
    $result = call("/v1/verifications/{$sent['id']}/check", ['code' => trim($line)]);
    if ($result['valid']) {
        echo "Verified\n";
        exit(0);
    }
    echo "Wrong code, attempts left: {$result['attempts_left']}\n";
}
exit(1);

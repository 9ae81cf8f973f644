<?php
// Take webhooks in PHP 8 or later: WEBHOOK_SECRET=whsec_… php -S 127.0.0.1:3000 receiver.php

function verified(string $body): bool
{
    $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $timestamp = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    if ($id === '' || !ctype_digit($timestamp) || abs(time() - (int) $timestamp) > 300) {
        return false;
    }
    $key = base64_decode(preg_replace('/^whsec_/', '', getenv('WEBHOOK_SECRET')));
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    foreach (explode(' ', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '') as $part) {
        if (hash_equals($expected, $part)) {
            return true;
        }
    }
    return false;
}

$body = (string) file_get_contents('php://input');
if (!verified($body)) {
    http_response_code(401);
    return;
}
http_response_code(204);
$event = json_decode($body, true);
error_log("{$event['type']} " . ($event['data']['id'] ?? '')); // unless $event['id'] was seen before

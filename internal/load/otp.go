package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sync"
	"time"
)

// heading is that of every table.
func heading() {
	fmt.Printf("%-28s %8s %10s %9s %9s %9s\n", "what", "count", "per second", "p50 ms", "p95 ms", "p99 ms")
}

// program is one that sends and verifies codes.
type program struct {
	s      *server
	client *http.Client
}

// call asks the API.
func (p *program) call(method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(context.Background(), method, path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-API-Key", p.s.APIKey)
	resp, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answered %d: %s", r.URL.Path, resp.StatusCode, data)
	}
	return json.Unmarshal(data, out)
}

var codeInText = regexp.MustCompile(`: (\d{6})`)

// otp measures sends, with the worker that carries the texts beside them, then their status and their verifies.
func (s *server) otp(pairs, workers int, length time.Duration) error {
	p := &program{s: s, client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: workers}}}
	number := func(i int) string { return fmt.Sprintf("+1202%07d", 6_000_000+i/900*1000+100+i%900) } // those ending in 001 to 010 misbehave on purpose
	ids := make([]string, pairs)
	heading()
	if err := measure("otp send", workers, pairs, 0, func(i int) error {
		var out struct {
			Data struct{ RequestID string } `json:"data"`
		}
		err := p.call(http.MethodPost, s.API+"/otp/send", map[string]string{"phoneNumber": number(i)}, &out)
		ids[i] = out.Data.RequestID
		return err
	}); err != nil {
		return err
	}
	codes, err := p.codes(pairs, workers, number)
	if err != nil {
		return err
	}
	var out any
	if err := measure("otp status", workers, 0, length, func(i int) error {
		return p.call(http.MethodGet, s.API+"/otp/status?requestId="+ids[i%pairs], nil, &out)
	}); err != nil {
		return err
	}
	return measure("otp verify", workers, pairs, 0, func(i int) error {
		return p.call(http.MethodPost, s.API+"/otp/verify", map[string]string{"requestId": ids[i], "otpCode": codes[i]}, &out)
	})
}

// codes reads every code from the inbox.
func (p *program) codes(pairs, workers int, number func(int) string) ([]string, error) {
	codes := make([]string, pairs)
	var wg sync.WaitGroup
	problems := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < pairs; i += workers {
				for deadline := time.Now().Add(time.Minute); codes[i] == ""; <-time.After(10 * time.Millisecond) {
					var texts []struct{ Text string }
					if err := p.call(http.MethodGet, p.s.Inbox+"/messages?to=%2B"+number(i)[1:], nil, &texts); err != nil {
						problems[w] = err
						return
					}
					if len(texts) > 0 {
						if found := codeInText.FindStringSubmatch(texts[0].Text); found != nil {
							codes[i] = found[1]
						}
					}
					if time.Now().After(deadline) {
						problems[w] = fmt.Errorf("no text for %s", number(i))
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return codes, errors.Join(problems...)
}

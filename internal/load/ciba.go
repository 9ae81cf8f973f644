package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	_ "github.com/lib/pq" // questions are put into the database: nobody is asked ten thousand things at once
)

// pollEvery is how often each is polled: CIBA Core 1.0 section 7.3.
const pollEvery = 5 * time.Second

// clockTicks are those of /proc in a second, on every Linux.
const clockTicks = 100

// ciba measures what open questions cost that are polled at their interval: processor time of the server and of PostgreSQL, in hundredths of one core.
func (s *server) ciba(pid, open, workers int, length time.Duration) error {
	out, err := s.command("", "client", "create", "till", "--name", "Till", "--grant-type", "urn:openid:params:grant-type:ciba", "--format", "json")
	if err != nil {
		return err
	}
	var client struct {
		Secret string `json:"client_secret"`
	}
	if err := json.Unmarshal(out, &client); err != nil {
		return err
	}
	postmaster, dsn, err := s.postgres()
	if err != nil {
		return err
	}
	if err := ask(dsn, open); err != nil {
		return err
	}
	http := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: workers, MaxConnsPerHost: workers}}
	poll := func(i int) error { return s.poll(http, client.Secret, i) }
	if err := measure("ciba poll, as fast as it goes", workers, open, 0, poll); err != nil { // and every one has been polled once
		return err
	}
	<-time.After(pollEvery)
	database := func() (float64, error) { return spent(postmaster, true) }
	before, err := spent(strconv.Itoa(pid), false)
	if err != nil {
		return err
	}
	beforeDatabase, err := database()
	if err != nil {
		return err
	}
	rounds := max(2, int(length/pollEvery))
	times, problem := paced(open, rounds, workers, poll)
	if problem != nil {
		return problem
	}
	after, err := spent(strconv.Itoa(pid), false)
	if err != nil {
		return err
	}
	afterDatabase, err := database()
	if err != nil {
		return err
	}
	took := (time.Duration(rounds) * pollEvery).Seconds()
	slices.Sort(times)
	at := func(p float64) float64 {
		return float64(times[min(len(times)-1, int(p*float64(len(times))))].Microseconds()) / 1000
	}
	fmt.Printf("%-28s %8d %10.1f %9.1f %9.1f %9.1f\n", "ciba poll, every 5 s", len(times), float64(len(times))/took, at(.5), at(.95), at(.99))
	fmt.Printf("%d open questions: server %.1f %% of one core, PostgreSQL %.1f %%\n", open, 100*(after-before)/took, 100*(afterDatabase-beforeDatabase)/took)
	return nil
}

// ask stores questions to the demo user that nobody answers.
func ask(dsn string, n int) (err error) {
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(context.Background(), `
		INSERT INTO backchannel_requests (id, hash, expires_at, client_id, subscriber_id, relying_party, requirement, payload, locales, slot, single)
		SELECT gen_random_uuid(), sha256(convert_to('question-' || n, 'UTF8')), now() + interval '1 hour', 'till', u.id, '{}', '{}', '{}', 'en', n, false
		  FROM generate_series(0, $1 - 1) n, (SELECT id FROM subscribers LIMIT 1) u`, n)
	if err == nil {
		_, err = db.ExecContext(context.Background(), "ANALYZE backchannel_requests")
	}
	return err
}

// poll asks about question i, which nobody has answered.
func (s *server) poll(client *http.Client, secret string, i int) error {
	form := url.Values{"grant_type": {"urn:openid:params:grant-type:ciba"}, "auth_req_id": {fmt.Sprintf("question-%d", i)}}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, s.Issuer+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("till", secret)
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if !strings.Contains(string(body), "authorization_pending") {
		return fmt.Errorf("poll answered %d %s", resp.StatusCode, body)
	}
	return nil
}

// paced polls n questions so many rounds long, each every [pollEvery], evenly.
func paced(n, rounds, workers int, poll func(int) error) (times []time.Duration, problem error) {
	var mu sync.Mutex
	var group sync.WaitGroup
	due := make(chan int, n)
	for range workers {
		group.Go(func() {
			for i := range due {
				began := time.Now()
				err := poll(i)
				took := time.Since(began)
				mu.Lock()
				times, problem = append(times, took), errors.Join(problem, err)
				mu.Unlock()
			}
		})
	}
	start := time.Now()
	for i := range n * rounds {
		at := start.Add(time.Duration(i) * pollEvery / time.Duration(n))
		if wait := time.Until(at); wait > time.Millisecond {
			<-time.After(wait)
		}
		due <- i % n
	}
	close(due)
	group.Wait()
	return times, problem
}

// spent is the processor time of a process, in seconds, or of its children.
func spent(pid string, children bool) (float64, error) {
	pids := []string{pid}
	if children {
		list, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children") //nolint:gosec // of the kernel
		if err != nil {
			return 0, err
		}
		pids = append(pids, strings.Fields(string(list))...)
	}
	total := 0.0
	for _, one := range pids {
		stat, err := os.ReadFile("/proc/" + one + "/stat") //nolint:gosec // a number
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after)
		for _, at := range []int{11, 12} { // utime and stime: proc(5)
			ticks, err := strconv.ParseFloat(fields[at], 64)
			if err != nil {
				return 0, err
			}
			total += ticks / clockTicks
		}
	}
	return total, nil
}

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
	"time"

	"golang.org/x/sync/errgroup"

	_ "github.com/lib/pq" // questions are put into the database: nobody is asked ten thousand things at once
)

// pollEvery is how often each is polled: CIBA Core 1.0 section 7.3.
const pollEvery = 5 * time.Second

// clockTicks are those of /proc in a second, on every Linux.
const clockTicks = 100

// ciba measures what open questions cost that applications wait for: processor time of the server and of PostgreSQL, in hundredths of one core. Each question is polled again as soon as its poll is answered, but no
// oftener than every [pollEvery]; with hold, polls wait so long at the server.
func (s *server) ciba(pid, open, workers int, length, hold time.Duration) error {
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
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // everything ends
	if err := ask(db, open); err != nil {
		return err
	}
	till := &till{server: s, secret: client.Secret, client: &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: open}}, answered: make([]chan time.Time, open), pending: make(chan time.Duration, open)}
	if hold == 0 {
		err := measure("ciba poll, as fast as it goes", workers, open, 0, func(i int) error { _, err := till.poll(context.Background(), i); return err })
		if err != nil {
			return err
		}
		<-time.After(pollEvery)
	}
	ctx, stop := context.WithCancel(context.Background())
	period := max(hold, pollEvery)
	var group errgroup.Group
	for i := range open {
		till.answered[i] = make(chan time.Time, 1)
		group.Go(func() error { return till.wait(ctx, i, period*time.Duration(i)/time.Duration(open)) })
	}
	problem := s.steady(ctx, pid, postmaster, till, period, length)
	if problem == nil && hold > 0 {
		problem = till.decide(ctx, db, min(200, open))
	}
	stop()
	return errors.Join(problem, group.Wait())
}

// steady measures while nothing changes any more: whole periods, after one for the beginning and another.
func (s *server) steady(ctx context.Context, pid int, postmaster string, till *till, period, length time.Duration) error {
	times := func(of time.Duration) (all []time.Duration) {
		over := time.After(of)
		for {
			select {
			case took := <-till.pending:
				all = append(all, took)
			case <-over:
				return all
			case <-ctx.Done():
				return all
			}
		}
	}
	times(2 * period)
	before, err := spent(strconv.Itoa(pid), false)
	if err != nil {
		return err
	}
	beforeDatabase, err := spent(postmaster, true)
	if err != nil {
		return err
	}
	began := time.Now()
	answers := times((max(length, time.Minute) + period - 1).Truncate(period))
	took := time.Since(began).Seconds()
	after, err := spent(strconv.Itoa(pid), false)
	if err != nil {
		return err
	}
	afterDatabase, err := spent(postmaster, true)
	if err != nil {
		return err
	}
	if len(answers) == 0 {
		return errors.New("no poll was answered")
	}
	memory, err := resident(pid)
	if err != nil {
		return err
	}
	percentiles("ciba poll", answers, float64(len(answers))/took)
	fmt.Printf("%d open questions: server %.1f %% of one core and %.0f MiB, PostgreSQL %.1f %%\n", len(till.answered), 100*(after-before)/took, memory, 100*(afterDatabase-beforeDatabase)/took)
	return nil
}

// percentiles prints a line as [measure] does, in milliseconds.
func percentiles(what string, times []time.Duration, rate float64) {
	slices.Sort(times)
	at := func(p float64) float64 {
		return float64(times[min(len(times)-1, int(p*float64(len(times))))].Microseconds()) / 1000
	}
	fmt.Printf("%-28s %8d %10.1f %9.1f %9.1f %9.1f\n", what, len(times), rate, at(.5), at(.95), at(.99))
}

// till is an application that waits for many answers.
type till struct {
	server   *server
	secret   string
	client   *http.Client
	answered []chan time.Time   // by question: when its answer came
	pending  chan time.Duration // how long polls took that had none
}

// wait polls question i until it is answered, or ctx ends.
func (t *till) wait(ctx context.Context, i int, after time.Duration) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(after):
		}
		began := time.Now()
		code, err := t.poll(ctx, i)
		took := time.Since(began)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // nobody waits any more
		case err != nil:
			return err
		case code != "authorization_pending":
			t.answered[i] <- time.Now()
			return nil
		}
		select {
		case t.pending <- took:
		default: // nobody measures
		}
		after = max(pollEvery-took, 0)
	}
}

// decide answers questions as their people would, one after another, and prints how long their application waited for that.
func (t *till) decide(ctx context.Context, db *sql.DB, n int) error {
	times := make([]time.Duration, n)
	for k := range n {
		i := k * len(t.answered) / n
		began := time.Now()
		_, err := db.ExecContext(ctx, `
			UPDATE backchannel_requests SET state = 'denied', decided_at = now() WHERE hash = sha256(convert_to('question-' || $1::int, 'UTF8'))
			RETURNING pg_notify('watchword_answers', encode(hash, 'hex'))`, i)
		if err != nil {
			return err
		}
		select {
		case at := <-t.answered[i]:
			times[k] = at.Sub(began)
		case <-time.After(time.Minute):
			return fmt.Errorf("nobody learned of answer %d", i)
		}
	}
	percentiles("ciba answer, from decision", times, 0)
	return nil
}

// ask stores questions to the demo user that nobody answers.
func ask(db *sql.DB, n int) error {
	_, err := db.ExecContext(context.Background(), `
		INSERT INTO backchannel_requests (id, hash, expires_at, client_id, subscriber_id, relying_party, requirement, payload, locales, slot, single)
		SELECT gen_random_uuid(), sha256(convert_to('question-' || n, 'UTF8')), now() + interval '1 hour', 'till', u.id, '{}', '{}', '{}', 'en', n, false
		  FROM generate_series(0, $1 - 1) n, (SELECT id FROM subscribers LIMIT 1) u`, n)
	if err == nil {
		_, err = db.ExecContext(context.Background(), "ANALYZE backchannel_requests")
	}
	return err
}

// poll asks about question i and gives what it is told.
func (t *till) poll(ctx context.Context, i int) (code string, err error) {
	form := url.Values{"grant_type": {"urn:openid:params:grant-type:ciba"}, "auth_req_id": {fmt.Sprintf("question-%d", i)}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.server.Issuer+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("till", t.secret)
	resp, err := t.client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var got struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &got); err != nil || got.Error != "authorization_pending" && got.Error != "access_denied" {
		return "", fmt.Errorf("poll answered %d %s", resp.StatusCode, body)
	}
	return got.Error, nil
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

// resident is the memory that a process has, in MiB.
func resident(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	var kib float64
	_, err = fmt.Sscan(after, &kib)
	return kib / 1024, err
}

package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// bank is an application that has payments confirmed on a page of its own.
type bank struct {
	s      *server
	client *http.Client
	token  string
}

// confirm measures whole confirmations: the bank creates a payment, the text of it arrives on a phone, and the bank gives its code back. Besides the rate, in which everything on this
// machine has a part, it tells the processor time of the server, which carries the texts and is the carrier as well, and of PostgreSQL.
func (s *server) confirm(pid, people, count, workers int) (err error) {
	out, err := s.command("", "client", "create", "payments", "--name", "The Bank", "--grant-type", "client_credentials", "--scope", "openid,transactions", "--format", "json")
	if err != nil {
		return err
	}
	var registered struct {
		Secret string `json:"client_secret"`
	}
	if err := json.Unmarshal(out, &registered); err != nil {
		return err
	}
	b := &bank{s: s, client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: workers}}}
	if err := b.signIn(registered.Secret); err != nil {
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
	defer func() { err = errors.Join(err, db.Close()) }()
	one := func(i int) error {
		if i%people == 0 { // few people do here what many would: their limits are forgotten
			if _, err := db.ExecContext(context.Background(), "LOCK TABLE windows IN SHARE ROW EXCLUSIVE MODE; DELETE FROM windows"); err != nil {
				return err
			}
		}
		return b.confirm(i, phone(i%people))
	}
	for i := range 2 * workers { // connections are open, statements prepared
		if err := one(count + i); err != nil {
			return err
		}
	}
	before, err := spent(strconv.Itoa(pid), false)
	if err != nil {
		return err
	}
	beforeDatabase, err := spent(postmaster, true)
	if err != nil {
		return err
	}
	if err := measure("confirmation, text included", workers, count, 0, one); err != nil {
		return err
	}
	after, err := spent(strconv.Itoa(pid), false)
	if err != nil {
		return err
	}
	afterDatabase, err := spent(postmaster, true)
	if err != nil {
		return err
	}
	fmt.Printf("processor time of one: server and carrier %.2f ms, PostgreSQL %.2f ms\n", 1000*(after-before)/float64(count), 1000*(afterDatabase-beforeDatabase)/float64(count))
	return nil
}

// signIn gets the bank a token of its own.
func (b *bank) signIn(secret string) error {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, b.s.Issuer+"/oauth/token", strings.NewReader(url.Values{"grant_type": {"client_credentials"}, "scope": {"transactions"}}.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("payments", secret)
	var got struct {
		Token string `json:"access_token"`
	}
	err = b.do(r, &got)
	b.token = got.Token
	return err
}

// do sends a request and reads the answer.
func (b *bank) do(r *http.Request, into any) error {
	resp, err := b.client.Do(r)
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
	return json.Unmarshal(data, into)
}

// call asks the API.
func (b *bank) call(path string, in map[string]any, into any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, b.s.Issuer+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.do(r, into)
}

// confirm has one payment confirmed. No other has its amount, by which its text is found.
func (b *bank) confirm(i int, number string) error {
	amount := fmt.Sprintf("%d.%02d", 100+i/100%900, i%100)
	payment := map[string]any{"phone": number, "amount": amount, "currency": "CHF", "payee": map[string]string{"name": "Gas AG", "account": "DE02100100109307118603"}}
	var made struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	if err := b.call("/v1/transactions", payment, &made); err != nil {
		return err
	}
	code, err := b.code(number, amount)
	if err != nil {
		return err
	}
	delete(payment, "phone")
	payment["code"] = code
	if err := b.call("/v1/transactions/"+made.ID+"/verify", payment, &made); err != nil {
		return err
	}
	if made.Status != "approved" {
		return fmt.Errorf("the payment is %s", made.Status)
	}
	return nil
}

// code waits for the text with the amount.
func (b *bank) code(number, amount string) (string, error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, b.s.Inbox+"/messages?to="+url.QueryEscape(number), nil)
	if err != nil {
		return "", err
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(3 * time.Millisecond) {
		var texts []struct{ Text string }
		if err := b.do(r, &texts); err != nil {
			return "", err
		}
		for _, m := range texts {
			if found := lastLine.FindStringSubmatch(m.Text); found != nil && strings.Contains(m.Text, amount) {
				return found[1], nil
			}
		}
	}
	return "", fmt.Errorf("no text for %s", amount)
}

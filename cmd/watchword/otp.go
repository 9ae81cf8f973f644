package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/watchword-auth/watchword/factors/gateway/client"
	"github.com/watchword-auth/watchword/internal/config"
)

// apiFlags say which server is called, and with which key.
type apiFlags struct{ url, keyFile string }

func (f *apiFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "api", "", "address of the server (default $"+config.APIVariable+", then http://localhost:8080)")
	flags.StringVar(&f.keyFile, "api-key-file", "", "file with the key; - is the standard input (default $"+config.APIKeyVariable+")")
}

// client makes a client of the API.
func (p *Program) apiClient(f *apiFlags) (*client.Client, error) {
	url, key := f.url, p.env(config.APIKeyVariable)
	if url == "" {
		url = p.env(config.APIVariable)
	}
	if url == "" {
		url = "http://localhost:8080"
	}
	if f.keyFile != "" {
		data, err := p.read(f.keyFile)
		if err != nil {
			return nil, err
		}
		key = strings.TrimSpace(string(data))
	}
	if key == "" {
		return nil, fail(exitUsage, "make one with: watchword apikey create TENANT, and put it into "+config.APIKeyVariable+" or a file for --api-key-file", "no API key is given")
	}
	return client.New(url, key), nil
}

func (p *Program) otpCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "otp", Short: "Send and check codes as a program does, over the API",
		Long:    "These commands call a running server, with an API key from " + config.APIKeyVariable + " or a file. They need neither its configuration nor its database.",
		Example: "  " + config.APIVariable + "=https://login.example.com " + config.APIKeyVariable + "=otp_live_… watchword otp send +12025550143 --watch",
	}
	group.AddCommand(p.otpSend(), p.otpVerify(), p.otpStatus(), p.otpCancel(), p.otpWatch())
	return group
}

func (p *Program) otpSend() *cobra.Command {
	var f apiFlags
	var r client.CreateRequest
	var t client.Transaction
	var channels []string
	var watch bool
	cmd := &cobra.Command{
		Use: "send NUMBER", Short: "Text a code to a phone", Args: one("the number"),
		Example: "  watchword otp send +12025550143\n  watchword otp send +12025550143 --channel sms:60s,voice --watch\n" +
			"  watchword otp send +12025550143 --amount 129.90 --currency EUR --payee 'Gas AG'",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.apiClient(&f)
			if err != nil {
				return err
			}
			r.To = args[0]
			for _, channel := range channels {
				name, timeout, _ := strings.Cut(channel, ":")
				r.Channels = append(r.Channels, client.Channel{Type: name, Timeout: timeout})
			}
			if t.Amount != "" || t.Currency != "" || t.Payee != "" {
				r.Transaction = &t
			}
			v, err := c.Create(cmd.Context(), r)
			if err != nil {
				return apiFailure(err)
			}
			if v.URL != "" && watch {
				p.say("Enter the code at %s", v.URL)
			}
			if !watch {
				return p.showVerification(v)
			}
			return p.watchDelivery(cmd.Context(), c, v.ID, watchFor, false)
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().StringSliceVar(&channels, "channel", nil, "ways to try, in order: sms, whatsapp, voice; sms:60s has the next one tried unless the text has arrived by then")
	cmd.Flags().StringVar(&r.Locale, "locale", "", "language of the text")
	cmd.Flags().StringVar(&r.Template, "template", "", "one of the tenant's templates")
	cmd.Flags().StringVar(&r.ClientRef, "ref", "", "what you call it")
	cmd.Flags().StringVar(&r.ReturnURL, "return-url", "", "have the code entered on a page of the server, which leads back to this address of the tenant's")
	cmd.Flags().StringVar(&r.IdempotencyKey, "idempotency-key", "", "key by which the same request is done once")
	cmd.Flags().StringVar(&t.Amount, "amount", "", "what is paid, as 129.90")
	cmd.Flags().StringVar(&t.Currency, "currency", "", "its currency, as EUR")
	cmd.Flags().StringVar(&t.Payee, "payee", "", "who is paid")
	cmd.Flags().BoolVar(&watch, "watch", false, "wait until it is known whether the text arrived")
	return cmd
}

func (p *Program) otpVerify() *cobra.Command {
	var f apiFlags
	var file string
	var t client.Transaction
	cmd := &cobra.Command{
		Use: "verify ID", Short: "Check a code", Args: one("the verification"),
		Long:    "Verify asks for the code, or reads it from a file or the standard input. It exits with 0 for the right code and with 5 for a wrong one.",
		Example: "  watchword otp verify vrf_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70\n  echo 123456 | watchword otp verify vrf_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70 --code-file -",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.apiClient(&f)
			if err != nil {
				return err
			}
			code, err := p.typedCode(file)
			if err != nil {
				return err
			}
			var payment *client.Transaction
			if t.Amount != "" || t.Currency != "" || t.Payee != "" {
				payment = &t
			}
			result, err := c.CheckTransaction(cmd.Context(), args[0], code, payment)
			if err != nil {
				return apiFailure(err)
			}
			err = p.show(result, func(w io.Writer) {
				fmt.Fprintf(w, "status\t%s\nvalid\t%v\nattempts_left\t%d\n", result.Status, result.Valid, result.AttemptsLeft)
			})
			if err == nil && !result.Valid {
				return fail(exitRefused, "", "wrong code: %s left", count(result.AttemptsLeft, "attempt"))
			}
			return err
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().StringVar(&file, "code-file", "", "file with the code; - is the standard input")
	cmd.Flags().StringVar(&t.Amount, "amount", "", "as it was sent, if it was; likewise the others")
	cmd.Flags().StringVar(&t.Currency, "currency", "", "its currency, as it was sent")
	cmd.Flags().StringVar(&t.Payee, "payee", "", "who is paid, as it was sent")
	return cmd
}

// typedCode is a code that a person types, or a file holds.
func (p *Program) typedCode(file string) (string, error) {
	if file != "" {
		data, err := p.read(file)
		return strings.TrimSpace(string(data)), err
	}
	if !p.interactive() {
		return "", fail(exitUsage, "give it on the standard input with --code-file -", "there is no terminal to ask for the code")
	}
	fmt.Fprint(p.Stderr, "Code: ")
	line, err := readLine(p.Stdin)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.Join(strings.Fields(line), ""), nil
}

func (p *Program) otpStatus() *cobra.Command {
	var f apiFlags
	cmd := &cobra.Command{
		Use: "status ID|NUMBER", Short: "Say how a verification stands, or the last one of a number", Args: one("the verification, or a number"),
		Example: "  watchword otp status vrf_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70\n  watchword otp status +12025550143 --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.apiClient(&f)
			if err != nil {
				return err
			}
			v, err := verificationOf(cmd.Context(), c, args[0])
			if err != nil {
				return apiFailure(err)
			}
			return p.showVerification(v)
		},
	}
	f.add(cmd.Flags())
	return cmd
}

// verificationOf reads a verification by its id, or the last one of a number.
func verificationOf(ctx context.Context, c *client.Client, what string) (*client.Verification, error) {
	if strings.HasPrefix(what, "vrf_") {
		return c.Get(ctx, what)
	}
	for v, err := range c.List(ctx, client.Filter{To: what}) {
		return v, err
	}
	return nil, fail(exitNotFound, "", "no verification of that number is known")
}

func (p *Program) otpCancel() *cobra.Command {
	var f apiFlags
	cmd := &cobra.Command{
		Use: "cancel ID", Short: "End a verification", Args: one("the verification"), Example: "  watchword otp cancel vrf_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.apiClient(&f)
			if err != nil {
				return err
			}
			v, err := c.Cancel(cmd.Context(), args[0])
			if err != nil {
				return apiFailure(err)
			}
			return p.showVerification(v)
		},
	}
	f.add(cmd.Flags())
	return cmd
}

// Times of watching.
const (
	watchFor   = 2 * time.Minute
	watchEvery = 500 * time.Millisecond
)

func (p *Program) otpWatch() *cobra.Command {
	var f apiFlags
	var length time.Duration
	var end bool
	cmd := &cobra.Command{
		Use: "watch ID|NUMBER", Short: "Wait until it is known whether the text arrived", Args: one("the verification, or a number"),
		Long: "Watch tells each step as it happens. It exits with 0 once a text was delivered, with 5 when none can be, and with 1 when nothing is known in time. With --end it goes on until the " +
			"verification itself has ended, and exits with 0 if it was approved.",
		Example: "  watchword otp watch vrf_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70\n  watchword otp watch +12025550143 --end --timeout 10m",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.apiClient(&f)
			if err != nil {
				return err
			}
			v, err := verificationOf(cmd.Context(), c, args[0])
			if err != nil {
				return apiFailure(err)
			}
			return p.watchDelivery(cmd.Context(), c, v.ID, length, end)
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().DurationVar(&length, "timeout", watchFor, "how long to wait")
	cmd.Flags().BoolVar(&end, "end", false, "go on until the verification has ended")
	return cmd
}

// watchDelivery tells how the texts of a verification come along, until that is decided; with end, until the verification is.
func (p *Program) watchDelivery(ctx context.Context, c *client.Client, id string, length time.Duration, end bool) error {
	began, told, line := time.Now(), map[string]string{}, p.liveLine()
	defer line("")
	tell := func(what, state string) {
		if told[what] != state {
			told[what] = state
			line("")
			p.say("%6.1f s  %s", time.Since(began).Seconds(), state)
		}
	}
	for {
		v, err := c.Get(ctx, id)
		if err != nil {
			return apiFailure(err)
		}
		newest, class, delivered := "queued", "", false // so that nothing more will be heard of it
		for _, d := range v.Deliveries {
			newest, class, delivered = d.Status, d.Reason, delivered || d.Status == "delivered" || d.Channel == "email" && d.Status == "sent" // mail servers report nothing
			state := strings.TrimSpace(d.Status + " by " + d.Channel + " " + d.Reason)
			if d.Channel == "" {
				state = strings.TrimSpace(d.Status + " " + d.Reason)
			}
			tell(d.ID, state)
		}
		if len(v.Deliveries) == 0 {
			tell("", "queued")
		}
		switch {
		case v.Status == client.Approved:
			tell("verification", v.Status)
			line("")
			return p.showVerification(v)
		case v.Status != client.Pending:
			line("")
			return errors.Join(p.showVerification(v), fail(exitRefused, "", "the verification is %s", v.Status))
		case delivered && !end:
			line("")
			return p.showVerification(v)
		case (newest == "undelivered" || newest == "failed") && !delivered && !end:
			line("")
			return errors.Join(p.showVerification(v), fail(exitRefused, "ask for another number, or try another channel: watchword otp send --channel voice", "the text did not arrive: %s", class))
		case time.Since(began) > length:
			line("")
			what := "no report"
			if end {
				what = "no end"
			}
			return errors.Join(p.showVerification(v), fail(exitFailed, "vendors that report nothing leave it at sent; --timeout waits for longer", "%s after %v", what, length))
		}
		line(fmt.Sprintf("%6.1f s  waiting; %s left", time.Since(began).Seconds(), time.Until(v.ExpiresAt).Round(time.Second)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchEvery):
		}
	}
}

// liveLine writes one line over and over where people look at it, and nothing elsewhere; "" takes it away.
func (p *Program) liveLine() func(text string) {
	f, ok := p.Stderr.(*os.File)
	if !ok || p.quiet || p.env("TERM") == "dumb" || !term.IsTerminal(int(f.Fd())) { //nolint:gosec // a descriptor fits
		return func(string) {}
	}
	return func(text string) { fmt.Fprintf(f, "\r\x1b[K%s", text) }
}

func (p *Program) showVerification(v *client.Verification) error {
	return p.show(v, func(w io.Writer) {
		fmt.Fprintf(w, "id\t%s\nto\t%s %s\nstatus\t%s %s\nattempts_left\t%d\nexpires_at\t%s\n", v.ID, v.Country, v.To, v.Status, v.Reason, v.AttemptsLeft, v.ExpiresAt.Format(time.RFC3339))
		if v.URL != "" {
			fmt.Fprintf(w, "url\t%s\n", v.URL)
		}
		for _, d := range v.Deliveries {
			fmt.Fprintf(w, "text\t%s %s %s\n", d.Channel, d.Status, d.Reason)
		}
	})
}

// apiFailure says what the API said.
func apiFailure(err error) error {
	problem, ok := errors.AsType[*client.Error](err)
	if !ok {
		if _, own := errors.AsType[*failure](err); own {
			return err
		}
		return fail(exitFailed, "is the server running, and its address right? see --api", "the server cannot be asked: %w", err)
	}
	code := exitRefused
	switch problem.Status {
	case http.StatusNotFound:
		code = exitNotFound
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		code = exitUsage
	case http.StatusServiceUnavailable, http.StatusInternalServerError:
		code = exitFailed
	}
	hint := ""
	if problem.RetryAfter > 0 {
		hint = fmt.Sprintf("try again in %v", problem.RetryAfter)
	}
	return fail(code, hint, "%w", problem)
}

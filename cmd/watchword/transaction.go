package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/authn/transaction"
)

func (p *Program) transactionCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "transaction", Short: "Look at payments that people were asked to confirm, and check their evidence",
		Example: "  watchword transaction list --client bank\n  watchword transaction verify result.jws --jwks jwks.json",
	}
	group.AddCommand(p.transactionList(), p.transactionShow(), p.transactionVerify())
	return group
}

// shownTransaction is a transaction as commands print it. The JSON form is stable.
type shownTransaction struct {
	ID         string              `json:"id"`
	Client     string              `json:"client_id"`
	User       string              `json:"sub"`
	Status     transaction.State   `json:"status"`
	Reason     string              `json:"reason,omitempty"`
	Door       string              `json:"door,omitempty"`
	Amount     string              `json:"amount"`
	Currency   string              `json:"currency"`
	Payees     []shownPayee        `json:"payees"`
	Reference  string              `json:"reference,omitempty"`
	Type       string              `json:"type"`
	Warnings   []string            `json:"warnings,omitempty"`
	SHA256     string              `json:"sha256"`
	CreatedAt  *time.Time          `json:"created_at,omitempty"`
	ExpiresAt  *time.Time          `json:"expires_at,omitempty"`
	DecidedAt  *time.Time          `json:"decided_at,omitempty"`
	ReportedAt *time.Time          `json:"reported_at,omitempty"`
	ACR        string              `json:"acr,omitempty"`
	AMR        []string            `json:"amr,omitempty"`
	AuthTime   *time.Time          `json:"auth_time,omitempty"`
	Shown      []transaction.Shown `json:"shown"`
	Result     string              `json:"result,omitempty"`
	// Of a result that was verified.
	Issuer   string `json:"iss,omitempty"`
	ResultID string `json:"jti,omitempty"`
}

type shownPayee struct {
	Name    string `json:"name"`
	Account string `json:"account,omitempty"` // masked
}

func shownPayees(r *transaction.Record) (all []shownPayee) {
	for _, payee := range r.Payees {
		all = append(all, shownPayee{payee.Name, payee.Masked()})
	}
	return all
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func shownConfirmation(t *transaction.Transaction) *shownTransaction {
	return &shownTransaction{
		ID: transaction.PublicID(t.ID), Client: t.Client, User: t.User, Status: t.State, Reason: t.Reason, Door: t.Door, Amount: t.Amount, Currency: t.Currency,
		Payees: shownPayees(&t.Record), Reference: t.Reference, Type: t.Type, Warnings: t.Warnings, SHA256: fmt.Sprintf("%x", t.Hash), CreatedAt: optionalTime(t.CreatedAt),
		ExpiresAt: optionalTime(t.ExpiresAt), DecidedAt: optionalTime(t.DecidedAt), ReportedAt: optionalTime(t.ReportedAt), ACR: t.ACR, AMR: t.AMR, AuthTime: optionalTime(t.AuthTime), Shown: t.Shown,
	}
}

// text prints what a person looks for.
func (t *shownTransaction) text(w io.Writer) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	at := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.Format(time.RFC3339)
	}
	line("transaction", t.ID)
	line("status", strings.TrimSpace(string(t.Status)+" "+t.Reason))
	line("application", t.Client)
	line("user", t.User)
	line("amount", t.Amount+" "+t.Currency)
	for _, payee := range t.Payees {
		line("to", strings.TrimSpace(payee.Name+" "+payee.Account))
	}
	line("reference", t.Reference)
	line("warnings", strings.Join(t.Warnings, " "))
	line("sha256", t.SHA256)
	line("created", at(t.CreatedAt))
	line("expires", at(t.ExpiresAt))
	line("decided", at(t.DecidedAt))
	line("reported", at(t.ReportedAt))
	line("rests on", strings.TrimSpace(t.ACR+" "+strings.Join(t.AMR, " ")))
	line("since", at(t.AuthTime))
	for _, s := range t.Shown {
		line("shown by "+s.Channel, fmt.Sprintf("%q in %s, %s", s.Text, s.Locale, s.Template))
	}
	line("signed by", t.Issuer)
	line("result", t.ResultID)
	line("result", t.Result)
}

func (p *Program) transactionList() *cobra.Command {
	var client, before string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List transactions, the newest first", Args: cobra.NoArgs,
		Long:    "List shows accounts masked. A transaction whose time has just ended may still be shown as pending.",
		Example: "  watchword transaction list --client bank --limit 10\n  watchword transaction list --before 2026-07-01 --format json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			until, err := moment("before", before)
			if err != nil {
				return err
			}
			if limit < 1 || limit > 1000 {
				return fail(exitUsage, "give --limit between 1 and 1000", "%d transactions are not possible", limit)
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				found, err := s.confirm.List(ctx, client, until, limit)
				if err != nil {
					return err
				}
				if len(found) == 0 {
					p.say("There is no such transaction.")
				}
				all := make([]*shownTransaction, len(found))
				for i, t := range found {
					all[i] = shownConfirmation(t)
				}
				return p.show(all, func(w io.Writer) {
					for _, t := range all {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s %s\t%s\n", t.ID, t.CreatedAt.Format(time.RFC3339), strings.TrimSpace(string(t.Status)+" "+t.Reason), t.Amount, t.Currency, t.Client)
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&client, "client", "", "of this application alone")
	cmd.Flags().StringVar(&before, "before", "", "that began before this time, as 2026-07-01 or 2026-07-01T12:00:00Z")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many")
	return cmd
}

func (p *Program) transactionShow() *cobra.Command {
	var result bool
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show a transaction, what was shown to the payer, and how it ended", Args: one("the transaction"),
		Long:    "Show prints one transaction. With --result it adds the signed result of an approval, signed anew with the key that is in use: the same result as the application got.",
		Example: "  watchword transaction show txn_9b2f0c1e5d0a4c598f381d2b7a1c7f10\n  watchword transaction show txn_9b2f0c1e5d0a4c598f381d2b7a1c7f10 --result --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			unknown := fail(exitNotFound, "see: watchword transaction list", "there is no such transaction")
			id, err := transaction.ParseID(args[0])
			if err != nil {
				return unknown
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				t, err := s.confirm.Find(ctx, id)
				if errors.Is(err, transaction.ErrUnknown) {
					return unknown
				}
				if err != nil {
					return err
				}
				shown := shownConfirmation(t)
				if result {
					if shown.Result, err = s.confirm.Result(t); errors.Is(err, transaction.ErrNoResult) {
						return fail(exitRefused, "leave --result out", "only an approval has a result, and this one is %s", t.State)
					} else if err != nil {
						return err
					}
				}
				return p.show(shown, shown.text)
			})
		},
	}
	cmd.Flags().BoolVar(&result, "result", false, "with the signed result")
	return cmd
}

func (p *Program) transactionVerify() *cobra.Command {
	var jwks, client string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Check the signed result of an approval, off-line", Args: one("the file with the result"),
		Long: "Verify checks that one of the keys in a JWK Set signed a result, and that its record, hash and identifiers belong together, and prints what was approved, by what, and\n" +
			"what had been shown. It needs neither a database nor a network. Keep the set that the issuer's jwks_uri (/oauth/keys) served when the result was made: keys are\n" +
			"replaced in time. It exits with 3 when the result does not bear out.",
		Example: "  watchword transaction verify result.jws --jwks jwks.json\n  watchword transaction verify - --jwks jwks.json --client bank < result.jws",
		RunE: func(_ *cobra.Command, args []string) error {
			var set jose.JSONWebKeySet
			if jwks == "" {
				return fail(exitUsage, "save what the issuer's jwks_uri serves, and name that file with --jwks", "the keys are missing")
			}
			data, err := p.readSmall(jwks)
			if err != nil {
				return err
			}
			if json.Unmarshal(data, &set) != nil || len(set.Keys) == 0 {
				return fail(exitUsage, "save what the issuer's jwks_uri serves, and name that file with --jwks", "%s is no JWK Set with keys", jwks)
			}
			if data, err = p.readSmall(args[0]); err != nil {
				return err
			}
			r, record, err := transaction.ReadReceipt(strings.TrimSpace(string(data)), set)
			if err == nil && client != "" && r.Audience != client {
				err = transaction.ErrAudience
			}
			if err != nil {
				return fail(exitProblems, "compare it with what the application stored, and the keys with those of that time", "%w", err)
			}
			shown := &shownTransaction{
				ID: r.Transaction, Client: r.Audience, User: r.Subject, Status: r.State, Amount: record.Amount, Currency: record.Currency, Payees: shownPayees(&record),
				Reference: record.Reference, Type: record.Type, SHA256: fmt.Sprintf("%x", record.Hash()), DecidedAt: optionalTime(time.Unix(r.IssuedAt, 0)), ACR: r.ACR, AMR: r.AMR,
				AuthTime: optionalTime(time.Unix(r.AuthTime, 0)), Shown: r.Shown, Issuer: r.Issuer, ResultID: r.ID,
			}
			p.say("The result bears out: one of these keys signed it, and everything in it belongs together.")
			return p.show(shown, shown.text)
		},
	}
	cmd.Flags().StringVar(&jwks, "jwks", "", "file with the issuer's public keys, as a JWK Set (required)")
	cmd.Flags().StringVar(&client, "client", "", "application that it has to be for")
	return cmd
}

// maxEvidence bounds files with results and keys.
const maxEvidence = 1 << 20

// readSmall reads a file, or the standard input for "-".
func (p *Program) readSmall(name string) ([]byte, error) {
	in := p.Stdin
	if name != "-" {
		f, err := os.Open(name) //nolint:gosec // the operator names it
		if err != nil {
			return nil, fileFailure(name, err)
		}
		defer f.Close() //nolint:errcheck // it was read
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxEvidence+1))
	if err == nil && len(data) > maxEvidence {
		err = errors.New("it is larger than 1 MiB")
	}
	if err != nil {
		return nil, fileFailure(name, err)
	}
	return data, nil
}

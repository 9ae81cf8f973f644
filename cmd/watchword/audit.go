package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/audit"
)

func (p *Program) auditCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "audit", Short: "Look at the audit records, export them, and prove that they are whole", Example: "  watchword audit tail --follow\n  watchword audit verify",
		Long: "Every record is linked to the one before it, and the end of the chain is signed with a key that is not in the database.",
	}
	group.AddCommand(p.auditVerify(), p.auditExport(), p.auditTail())
	return group
}

// operator names who gives a command, for its audit records: as the machine knows them, and as sudo says who they were before.
func (p *Program) operator() string {
	name := p.env("SUDO_USER")
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	if name == "" {
		return strconv.Itoa(os.Getuid())
	}
	return name
}

// reader reads the chain.
func (s *services) reader() *audit.Reader { return &audit.Reader{DB: s.db, Keys: s.ring} }

func (p *Program) auditVerify() *cobra.Command {
	var noted []string
	cmd := &cobra.Command{
		Use: "verify", Short: "Prove that no record was changed, removed, added or moved", Args: cobra.NoArgs,
		Long: "Verify follows the chain from the oldest link that is kept to its signed end, and names the first place that does not bear out. It exits with 3 then.\n\n" +
			"That somebody cut the chain back to an earlier state, head and all, can be told only by who has noted a later one: keep what export or verify\n" +
			"--format json print, in a place that the database's owner cannot write to, and give it with --anchor. The server's log has the head too, once an hour,\n" +
			"as «audit checkpoint»; it is given as --anchor SEQ:HASH.",
		Example: "  watchword audit verify\n  watchword audit verify --anchor /mnt/worm/audit.jsonl\n  watchword audit verify --format json > head.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			anchors := make([]audit.Anchor, len(noted))
			for i, value := range noted {
				var err error
				if anchors[i], err = p.anchor(value); err != nil {
					return err
				}
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				report, err := s.reader().Verify(ctx, anchors...)
				if err != nil {
					return err
				}
				return p.showReport(report)
			})
		},
	}
	cmd.Flags().StringArrayVar(&noted, "anchor", nil, "head that was noted earlier: a file with an export or a report, - for the standard input, or SEQ:HASH; may be given several times")
	return cmd
}

// anchor reads one that is given as a file or as SEQ:HASH.
func (p *Program) anchor(value string) (a audit.Anchor, err error) {
	if seq, hash, ok := strings.Cut(value, ":"); ok {
		if a.Seq, err = strconv.ParseInt(seq, 10, 64); err == nil && a.Hash.UnmarshalText([]byte(hash)) == nil {
			return a, nil
		}
	}
	in := p.Stdin
	if value != "-" {
		f, err := os.Open(value) //nolint:gosec // the operator names it
		if err != nil {
			return a, fileFailure(value, err)
		}
		defer f.Close() //nolint:errcheck // it was read
		in = f
	}
	if a, err = audit.ReadAnchor(in); err != nil {
		return a, fail(exitUsage, "give a file that watchword audit export or verify --format json wrote, or SEQ:HASH", "%s cannot be used as anchor: %w", value, err)
	}
	return a, nil
}

func (p *Program) showReport(r audit.Report) error {
	err := p.show(r, func(w io.Writer) {
		switch {
		case r.Head.Seq == 0 && r.Fault == nil:
			fmt.Fprintln(w, "links\tnone yet: a server makes them while it runs")
		case r.To >= r.From:
			fmt.Fprintf(w, "links\t%d to %d bear out\n", r.From, r.To)
		default:
			fmt.Fprintf(w, "links\tnone was looked at\n")
		}
		fmt.Fprintf(w, "records\t%d unchanged, %d gone because their time was over\n", r.Records, r.Pruned)
		if r.Fault == nil {
			waiting := strconv.FormatInt(r.Waiting, 10)
			if r.Oldest != nil {
				waiting += ", the oldest of " + r.Oldest.Format(time.RFC3339)
			}
			fmt.Fprintf(w, "not linked yet\t%s\n", waiting)
		}
		if r.Head.Key != "" {
			fmt.Fprintf(w, "head\t%d:%s\n", r.Head.Seq, r.Head.Hash)
			fmt.Fprintf(w, "signed\t%s with key %s\n", r.Head.At.UTC().Format(time.RFC3339), r.Head.Key)
		}
	})
	if err != nil || r.Fault == nil {
		return err
	}
	hint := "keep the database as it is, compare it with a backup or an export, and find out who had access to it"
	if errors.Is(r.Fault, audit.ErrOtherKey) {
		hint = "restore the key files that the server has had"
	}
	return fail(exitProblems, hint, "the audit chain is broken: %s", r.Fault.Detail)
}

func (p *Program) auditExport() *cobra.Command {
	var from, to string
	var after int64
	cmd := &cobra.Command{
		Use: "export", Short: "Write linked records as JSON Lines, with the signed head at the end", Args: cobra.NoArgs,
		Long: "Export writes one JSON object a line: seq, previous, hash and record, in the order of the chain; the last line is the signed head up to which it looked, with the\n" +
			"public key. Every line can be verified by itself: hash is SHA-256 over previous, seq (8 bytes), the record's id (16), its time in microseconds since 1970 (8) and\n" +
			"the SHA-256 of the record's bytes as they stand. An export that was interrupted, or is to be continued tomorrow, goes on with --after and the last seq that was\n" +
			"written. It stops with 3 at a record that does not fit its link.",
		Example: "  watchword audit export > audit.jsonl\n  watchword audit export --after 4711 >> audit.jsonl\n  watchword audit export --from 2026-07-01 --to 2026-08-01 > july.jsonl",
		RunE: func(cmd *cobra.Command, _ []string) error {
			part := audit.Range{After: after}
			var err error
			if part.From, err = moment("from", from); err != nil {
				return err
			}
			if part.To, err = moment("to", to); err != nil {
				return err
			}
			if after < 0 || !part.To.IsZero() && part.To.Before(part.From) {
				return fail(exitUsage, "see: watchword audit export --help", "there is nothing in such a range")
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				out := bufio.NewWriterSize(p.Stdout, 1<<16)
				head, err := s.reader().Export(ctx, part, func(e *audit.Exported) error {
					line, err := e.MarshalJSON()
					if err != nil {
						return err
					}
					_, err = out.Write(append(line, '\n'))
					return err
				})
				if err != nil { // whole lines only: what is there can be continued
					return errors.Join(exportFailure(err), out.Flush())
				}
				line, err := json.Marshal(map[string]any{"head": struct {
					audit.Head
					PublicKey []byte `json:"public_key,omitempty"`
				}{head, head.PublicKey(s.ring)}})
				if err != nil {
					return err
				}
				if _, err := out.Write(append(line, '\n')); err != nil {
					return err
				}
				return out.Flush()
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "first time, as 2026-07-01 or 2026-07-01T12:00:00Z (default: the beginning)")
	cmd.Flags().StringVar(&to, "to", "", "time before which it ends (default: the head)")
	cmd.Flags().Int64Var(&after, "after", 0, "begin after this seq")
	return cmd
}

// exportFailure says what to do when the chain broke under an export.
func exportFailure(err error) error {
	if errors.Is(err, audit.ErrBroken) || errors.Is(err, audit.ErrForged) || errors.Is(err, audit.ErrOtherKey) {
		return fail(exitProblems, "see what is wrong with: watchword audit verify", "%w", err)
	}
	return err
}

// moment reads a time that a flag names.
func moment(flag, value string) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, value); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fail(exitUsage, "write it as 2026-07-01 (midnight UTC) or 2026-07-01T12:00:00Z", "--%s is not a time", flag)
}

// look is how often a tail looks for new records.
const look = time.Second

func (p *Program) auditTail() *cobra.Command {
	var n int
	var follow bool
	cmd := &cobra.Command{
		Use: "tail", Short: "Show the latest records, and new ones as they come", Args: cobra.NoArgs,
		Long:    "Tail shows records by their time, linked or not. With --format json each is an object on a line of its own.",
		Example: "  watchword audit tail\n  watchword audit tail --lines 0 --follow --format json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n < 0 || n > 10_000 {
				return fail(exitUsage, "give --lines between 0 and 10000", "%d lines are not possible", n)
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				every := time.Duration(0)
				if follow {
					every = look
				}
				return s.reader().Tail(ctx, n, every, func(e *audit.Entry) error {
					line := []byte(e.Line())
					if p.format == "json" {
						var err error
						if line, err = e.MarshalJSON(); err != nil {
							return err
						}
					}
					_, err := p.Stdout.Write(append(line, '\n'))
					return err
				})
			})
		},
	}
	cmd.Flags().IntVarP(&n, "lines", "n", 20, "how many of the latest")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new ones until interrupted")
	return cmd
}

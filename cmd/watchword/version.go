package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// build is what the binary knows of itself.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

func buildInfo() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build{Version: "unknown"}
	}
	b := build{Version: info.Main.Version, Go: info.GoVersion}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}

func (p *Program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs, Example: "  watchword version --format json",
		RunE: func(*cobra.Command, []string) error {
			b := buildInfo()
			return p.show(b, func(w io.Writer) { fmt.Fprintf(w, "watchword %s (%s)\n", b.Version, b.Go) })
		},
	}
}

func (p *Program) healthcheckCommand() *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use: "healthcheck", Short: "Ask a running server how it is", Args: cobra.NoArgs,
		Long:    "Healthcheck asks the management listener of the server that has the same configuration. It exits with 0 if the process is\nwell, with --ready if it can also serve.",
		Example: "  watchword healthcheck --ready",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := p.load()
			if err != nil {
				return err
			}
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			req, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, "http://"+reachable(cfg.ManagementListen)+path, nil)
			if err != nil {
				return err
			}
			client := http.Client{Timeout: 5 * time.Second}
			res, err := client.Do(req)
			if err != nil {
				return fail(exitFailed, "see that the server runs and that management_listen is the same for both", "the server does not answer on %s", cfg.ManagementListen)
			}
			defer res.Body.Close() //nolint:errcheck // read to the end
			body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
			if err != nil {
				return err
			}
			if !p.quiet {
				if _, err := p.Stdout.Write(body); err != nil {
					return err
				}
			}
			if res.StatusCode != http.StatusOK {
				return fail(exitFailed, "", "the server answers %d", res.StatusCode)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it can serve")
	return cmd
}

func (p *Program) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages into a directory", Args: one("the directory"), Example: "  watchword man /usr/local/share/man/man1",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.Mkdir(args[0], 0o755); err != nil && !errors.Is(err, os.ErrExist) { //nolint:gosec // manual pages are for everybody
				return fail(exitUsage, "make the directory above it first: mkdir -p "+filepath.Dir(args[0]), "%w", err)
			}
			// A fixed date keeps builds reproducible.
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "WATCHWORD", Section: "1", Source: "Watchword", Date: &time.Time{}}, args[0])
		},
	}
}

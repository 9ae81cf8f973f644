package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/sms/carriersim"
)

func (p *Program) smsCommand() *cobra.Command {
	group := &cobra.Command{Use: "sms", Short: "Try out text messages", Example: "  watchword sms simulator"}
	group.AddCommand(p.smsSimulator())
	return group
}

func (p *Program) smsSimulator() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: "simulator", Short: "Run a carrier that shows texts instead of sending them", Args: cobra.NoArgs,
		Long: "Simulator takes texts as a vendor does and shows them on an inbox page. A server whose sms.vendors.simulator.url is its address\n" +
			"sends through it. It shows every code to whoever asks, and therefore listens on loopback only.",
		Example: "  watchword sms simulator --listen 127.0.0.1:8082",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if host, _, err := net.SplitHostPort(address); err != nil || !config.Loopback(host) {
				return fail(exitUsage, "use 127.0.0.1 and a port", "%q is not an address on loopback", address)
			}
			l, err := listen(address)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			server := simulatorServer(ctx)
			context.AfterFunc(ctx, func() { _ = server.Close() })
			fmt.Fprintf(p.Stdout, "http://%s\n", l.Addr())
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "listen", "127.0.0.1:8082", "address and port")
	return cmd
}

// simulatorServer has no time limit on answers: the inbox page listens for texts as long as it is open.
func simulatorServer(ctx context.Context) *http.Server {
	return &http.Server{
		Handler: carriersim.New(time.Now), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
}

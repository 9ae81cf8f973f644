package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/sms/carriersim"
)

// simPace is how far apart a simulated text and its receipts are: long enough to be seen.
const simPace = 300 * time.Millisecond

func (p *Program) simCommand() *cobra.Command {
	var address, carrier, post string
	cmd := &cobra.Command{
		Use: "sim", Short: "Run a carrier that shows texts instead of sending them", Args: cobra.NoArgs,
		Long: "Sim speaks the APIs of the vendors that the server has drivers for, each under a path of its own, shows the texts on an inbox page,\n" +
			"sends receipts as the vendors do, and fails on demand. A server whose sms.vendors.simulator.url is its address sends through it; so does\n" +
			"any program whose vendor's base URL is replaced. It shows every code to whoever asks, and therefore listens on loopback only.\n\n" +
			"  GET    /                     inbox page, live; phones answer from there\n" +
			"  GET    /messages?to=NUMBER   what arrived, the newest first, as JSON; DELETE empties it\n" +
			"  GET    /mails?to=ADDRESS     the same for mails, with --smtp\n" +
			"  POST   /replies              {\"from\",\"to\",\"text\"}: a phone answers; says who was told\n" +
			"  POST   /swaps                {\"number\",\"at\"}: a SIM is changed, for sim_swap.url = ADDRESS/simswap/v2\n" +
			"  GET    /faults, POST /faults {\"vendor\",\"outage\",\"fail\",\"class\",…}: what goes wrong next\n" +
			"  GET    /accounts             base URLs, paths and credentials of every vendor; POST changes them,\n" +
			"                               and where receipts and replies go: {\"vendor\",\"receipts_url\",\"inbound_url\"}\n\n" +
			"The last three digits of a number decide what happens to it: 001 invalid, 002 opted out, 003 rate limited, 004 undelivered,\n" +
			"005 expired, 006 broken at first, 007 answer lost, 008 fraud, 009 no receipt, 010 receipts early, twice and out of order, 011 SIM changed an hour ago, 012 SIM unknown.\n\n" +
			"A text by Twilio's API, and what the phone shows:\n\n" +
			"  curl -u AC00000000000000000000000000000001:twilio-auth-token -d To=%2B12025550143 -d From=%2B12025550100 -d Body='code 123456' \\\n" +
			"    http://127.0.0.1:8082/twilio/2010-04-01/Accounts/AC00000000000000000000000000000001/Messages.json\n" +
			"  curl 'http://127.0.0.1:8082/messages?to=%2B12025550143'",
		Example: "  watchword sim\n  watchword sim --listen 127.0.0.1:9000",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if host, _, err := net.SplitHostPort(address); err != nil || !config.Loopback(host) {
				return fail(exitUsage, "use 127.0.0.1 and a port", "%q is not an address on loopback", address)
			}
			l, err := listen(address)
			if err != nil {
				return err
			}
			for _, other := range []string{carrier, post} {
				if host, _, err := net.SplitHostPort(other); other != "" && (err != nil || !config.Loopback(host)) {
					return errors.Join(l.Close(), fail(exitUsage, "use 127.0.0.1 and a port", "%q is not an address on loopback", other))
				}
			}
			ctx := cmd.Context()
			sim := carriersim.New(carriersim.Options{Now: time.Now, Pace: simPace})
			server := simulatorServer(ctx, sim)
			context.AfterFunc(ctx, func() { _ = server.Close() })
			links := map[string]string{}
			if carrier != "" {
				c, err := listen(carrier)
				if err != nil {
					return errors.Join(err, l.Close())
				}
				links["smpp"] = "smpp://" + c.Addr().String()
				go sim.ServeSMPP(ctx, c) //nolint:errcheck // it ends with ctx
			}
			if post != "" {
				c, err := listen(post)
				if err != nil {
					return errors.Join(err, l.Close())
				}
				links["smtp"] = "smtp://" + c.Addr().String()
				go sim.ServeSMTP(ctx, c) //nolint:errcheck // it ends with ctx
			}
			base := "http://" + l.Addr().String()
			if err := p.announceSim(sim, base, links); err != nil {
				return err
			}
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "listen", "127.0.0.1:8082", "address and port")
	cmd.Flags().StringVar(&post, "smtp", "", "address and port for mails by SMTP, such as 127.0.0.1:2525 (default: none)")
	cmd.Flags().StringVar(&carrier, "smpp", "", "address and port for SMPP, such as 127.0.0.1:2775 (default: none)")
	return cmd
}

// announceSim says where everything is.
func (p *Program) announceSim(sim *carriersim.Simulator, base string, links map[string]string) error {
	type row struct {
		Vendor  string `json:"vendor"`
		BaseURL string `json:"base_url"`
		ID      string `json:"id,omitempty"`
		Secret  string `json:"secret"`
		Signing string `json:"signing_secret,omitempty"`
		Send    string `json:"send,omitempty"`
	}
	var rows []row
	for _, name := range sim.Vendors() {
		a, address := sim.Account(name), base+"/"+name
		if name == "smpp" || name == "smtp" { // no HTTP
			address = links[name]
		}
		if address != "" {
			rows = append(rows, row{name, address, a.ID, a.Secret, a.Signing, sim.Send(name)})
		}
	}
	return p.show(map[string]any{"inbox": base, "vendors": rows}, func(w io.Writer) {
		fmt.Fprintf(w, "Inbox\t%s\n\nVENDOR\tBASE URL\tACCOUNT\tSECRET\tSIGNING SECRET\tTEXTS\n", base)
		for _, r := range rows {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", carriersim.Label(r.Vendor), r.BaseURL, r.ID, r.Secret, r.Signing, r.Send)
		}
	})
}

// simulatorServer has no time limit on answers: the inbox page listens for texts as long as it is open.
func simulatorServer(ctx context.Context, sim *carriersim.Simulator) *http.Server {
	return &http.Server{
		Handler: sim, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
}

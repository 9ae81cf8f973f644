package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/authn/transaction/api"
	bank "github.com/watchword-auth/watchword/examples/bank/app"
	"github.com/watchword-auth/watchword/examples/demo/app"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgserver"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/oidc"
	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
)

// The person and the application that a development server knows. They are worth nothing: it listens on loopback alone.
const (
	demoUsername = "demo"
	demoPassword = "plain sailing tonight"
	demoPhone    = "+12025550143" // of the range that is reserved for fiction
	demoEmail    = "demo@example.com"
	demoClient   = "demo"
	demoTenant   = "demo"
	bankClient   = "bank"
	bankPhone    = "+1 202 555 0199" // as demoPhone
)

// world is a development server's whole surroundings, as --ready tells scripts.
type world struct {
	Issuer       string `json:"issuer"`
	Config       string `json:"config"` // file for the commands that administer this server
	Inbox        string `json:"inbox"`
	Demo         string `json:"demo"`
	Management   string `json:"management"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	RedirectURI  string `json:"redirect_uri"`
	Username     string `json:"username"`
	Password     string `json:"password"`
	Phone        string `json:"phone"`
	API          string `json:"api"` // where programs send and verify codes
	APIKey       string `json:"api_key"`
	TestAPIKey   string `json:"test_api_key"`
	Email        string `json:"email"`
	Bank         string `json:"bank"` // an example, where payments are confirmed
	BankClientID string `json:"bank_client_id"`
	BankKey      jwk    `json:"bank_key"` // private: it authenticates the bank
	PID          int    `json:"pid"`
}

// jwk is a private key. It prints as nothing.
type jwk struct{ jose.JSONWebKey }

// String keeps the key out of logs.
func (jwk) String() string { return "[secret]" }

type devOptions struct {
	listen, data, ready string
	ephemeral           bool
}

func (p *Program) devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use: "dev", Short: "Run everything on this machine, to try it and to develop against", Args: cobra.NoArgs,
		Long: "Dev starts a PostgreSQL of its own from the binaries that are installed, makes tables and keys, a demo user with a phone, a demo\n" +
			"application and a bank, and a carrier simulator whose inbox shows the texts and mails as they arrive. It prints the links to open. What happened is there\n" +
			"again at the next start, unless --ephemeral.\n\n" +
			"It writes watchword.yaml into its data directory: every other command administers this server with --config and that file.\n\n" +
			"GET /messages?to=%2B12025550143 of the inbox gives the texts as JSON, the newest first, and GET /mails the mails. Numbers ending in 001 to 010 fail on purpose.\n\n" +
			"The file of --ready is there while it runs: issuer, api, inbox, demo, bank and management are addresses, config is the file that commands take, username, password, phone\n" +
			"and email are the demo user's, client_id, client_secret and redirect_uri the demo application's, bank_client_id and bank_key (a private JWK) the bank's, api_key and\n" +
			"test_api_key the demo tenant's; pid is the process.",
		Example: "  watchword dev\n  watchword dev --listen localhost:9000 --data ~/watchword\n  watchword dev --ephemeral --listen localhost:0 --ready /tmp/watchword.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(p.configFiles) > 0 {
				return fail(exitUsage, "change single keys with --set, or use watchword serve", "dev makes its own configuration")
			}
			return p.dev(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.listen, "listen", "localhost:8080", "host and port of the issuer; the demo application, the inbox, the management listener and the bank take the next four ports; port 0 takes free ones")
	flags.StringVar(&o.data, "data", "", "directory that keeps the database and the keys (default "+p.dataDir()+")")
	flags.BoolVar(&o.ephemeral, "ephemeral", false, "forget everything at the end")
	flags.StringVar(&o.ready, "ready", "", "file to write once everything runs: JSON with addresses and credentials")
	cmd.MarkFlagsMutuallyExclusive("data", "ephemeral")
	return cmd
}

// dataDir is where a development server's data stays.
func (p *Program) dataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/watchword-dev" // PostgreSQL runs as another user, who cannot enter root's home
	}
	base := p.env("XDG_DATA_HOME")
	if base == "" {
		base = filepath.Join(p.env("HOME"), ".local", "share")
	}
	return filepath.Join(base, "watchword")
}

// dev runs a development server until ctx ends.
func (p *Program) dev(ctx context.Context, o devOptions) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listeners, issuer, err := devListeners(o.listen)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range listeners {
			l.Close() //nolint:errcheck // closed already by whoever served on it
		}
	}()
	dir, release, err := p.claimData(o)
	if err != nil {
		return err
	}
	defer release()
	p.say("Starting PostgreSQL…")
	database, err := pgserver.Start(ctx, pgserver.Options{Dir: filepath.Join(dir, "postgres"), Fast: o.ephemeral, MaxConnections: 50})
	if errors.Is(err, pgserver.ErrNotInstalled) {
		return fail(exitFailed, "Debian, Ubuntu: apt-get install postgresql · macOS: brew install postgresql@17 · Fedora: dnf install postgresql-server", "%w", err)
	}
	if err != nil {
		return fail(exitFailed, "try a fresh directory with --data, or --ephemeral", "PostgreSQL does not start: %w", err)
	}
	defer database.Stop()
	began := time.Now()
	post, err := listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer post.Close() //nolint:errcheck // whoever serves on it closes it
	s, err := p.devServices(ctx, database, dir, issuer, listeners, post.Addr().String())
	if err != nil {
		return err
	}
	inbox, demo := "http://"+listeners[2].Addr().String(), "http://"+listeners[1].Addr().String()
	level := new(slog.LevelVar)
	s.details = append(s.details, demoDetails())
	s.confirm.Config.Hold = 0 // the demo user's phone was bound a moment ago
	srv, err := newServer(s, p.logger(s.cfg, level))
	if err != nil {
		return errors.Join(err, s.db.Close())
	}
	if err := errors.Join(s.keys.Ensure(ctx), srv.keeper.Once(ctx)); err != nil {
		return errors.Join(err, s.db.Close())
	}
	w, err := s.furnish(ctx, dir, issuer, demo, inbox)
	if err == nil {
		err = s.furnishBank(ctx, dir, w, "http://"+listeners[4].Addr().String())
	}
	if err != nil {
		return errors.Join(err, s.db.Close())
	}
	w.Management = "http://" + listeners[3].Addr().String()

	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	carrier := carriersim.New(carriersim.Options{Now: time.Now, Pace: simPace, Uses: []string{"http"}})
	account := carrier.Account("twilio")
	account.Inbound = issuer + "/v1/inbound/twilio" // as an operator enters it in Twilio's console
	carrier.SetAccount("twilio", account)
	go carrier.ServeSMTP(background, post) //nolint:errcheck // it ends with background
	simulator := simulatorServer(background, carrier)
	application := srv.httpServer(background, app.New(app.Config{Issuer: issuer, BaseURL: demo, ClientID: w.ClientID, ClientSecret: w.ClientSecret}))
	branch := srv.httpServer(background, bank.New(bank.Config{Issuer: issuer, BaseURL: w.Bank, ClientID: w.BankClientID, Key: w.BankKey.JSONWebKey}))
	for _, side := range []struct {
		server   *http.Server
		listener net.Listener
	}{{application, listeners[1]}, {simulator, listeners[2]}, {branch, listeners[4]}} {
		go side.server.Serve(side.listener) //nolint:errcheck // it ends when it is closed
		defer side.server.Close()           //nolint:errcheck // everything ends here
	}
	running := make(chan error, 1)
	go func() {
		defer close(running)
		running <- srv.run(ctx, listeners[0], listeners[3])
	}()
	giveUp := func(err error) error { // what uses the database ends before the database does
		cancel()
		return errors.Join(err, <-running)
	}
	if err := answers(ctx, issuer, running); err != nil {
		return giveUp(err)
	}
	if o.ready != "" {
		if err := writeReady(o.ready, w); err != nil {
			return giveUp(fail(exitFailed, "name another file with --ready", "%s cannot be written: %w", o.ready, err))
		}
		defer os.Remove(o.ready) //nolint:errcheck // it may be gone
	}
	debug.FreeOSMemory()
	p.welcome(w, dir, o.ephemeral, time.Since(began))
	return <-running
}

// check finds out whether the ready file can be written, before anything is started.
func (o *devOptions) check() error {
	if o.ready == "" {
		return nil
	}
	probe, err := os.CreateTemp(filepath.Dir(o.ready), ".watchword-*")
	if err != nil {
		return fail(exitUsage, "make the directory first: mkdir -p "+filepath.Dir(o.ready)+", or name another file with --ready", "%s cannot be written: %w", o.ready, err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// devListeners opens the five ports: issuer, demo application, inbox, management, bank. All but the issuer are reached under another
// host name, because cookies do not tell ports apart.
func devListeners(address string) (all [5]net.Listener, issuer string, err error) {
	host, portText, err := net.SplitHostPort(address)
	port, portErr := strconv.Atoi(portText)
	if err != nil || portErr != nil || port < 0 || port > 65531 {
		return all, "", fail(exitUsage, "write --listen localhost:8080", "%q is not a host and a port", address)
	}
	if host == "" {
		host = "localhost"
	}
	if !config.Loopback(host) {
		return all, "", fail(exitUsage, "use localhost; for other machines there is: watchword serve", "a development server is for this machine only: its inbox shows every code")
	}
	other := "127.0.0.1"
	if host == other {
		other = "localhost"
	}
	hosts := [5]string{host, other, other, other, other}
	for i := range all {
		at := "0"
		if port != 0 {
			at = strconv.Itoa(port + i)
		}
		if all[i], err = listen(net.JoinHostPort(hosts[i], at)); err != nil {
			for _, l := range all[:i] {
				l.Close() //nolint:errcheck // nothing was served yet
			}
			var f *failure
			if errors.As(err, &f) {
				f.hint = "is another watchword dev running? Stop it, or choose other ports with --listen localhost:0"
			}
			return all, "", err
		}
		all[i] = named{all[i], hosts[i]}
	}
	return all, "http://" + all[0].Addr().String(), nil
}

// named is a listener that tells the host name it was opened for, not the address behind it.
type named struct {
	net.Listener
	host string
}

// Addr implements net.Listener.
func (n named) Addr() net.Addr {
	_, port, err := net.SplitHostPort(n.Listener.Addr().String())
	if err != nil {
		return n.Listener.Addr()
	}
	return hostPort(net.JoinHostPort(n.host, port))
}

type hostPort string

// Network implements net.Addr.
func (hostPort) Network() string { return "tcp" }

// String implements net.Addr.
func (h hostPort) String() string { return string(h) }

// claimData makes the directory ready and keeps others out of it until release is called.
func (p *Program) claimData(o devOptions) (dir string, release func(), err error) {
	if o.ephemeral {
		if dir, err = os.MkdirTemp("", "watchword-dev-"); err != nil {
			return "", nil, err
		}
		return dir, func() { _ = os.RemoveAll(dir) }, os.Chmod(dir, 0o711) //nolint:gosec // PostgreSQL's own user has to pass through
	}
	if dir = o.data; dir == "" {
		dir = p.dataDir()
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // as above
		return "", nil, fail(exitFailed, "choose another directory with --data", "the data directory cannot be made: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the operator names it
	if err != nil {
		return "", nil, fail(exitFailed, "choose another directory with --data", "the data directory cannot be written to: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close() //nolint:errcheck // nothing was written
		return "", nil, fail(exitFailed, "stop it, choose another directory with --data, or use --ephemeral", "another watchword dev uses %s", dir)
	}
	return dir, func() { _ = lock.Close() }, nil
}

// devServices makes tables, keys and services.
func (p *Program) devServices(ctx context.Context, database *pgserver.Server, dir, issuer string, listeners [5]net.Listener, post string) (*services, error) {
	_, postPort, err := net.SplitHostPort(post)
	if err != nil {
		return nil, err
	}
	if err := database.CreateDatabase(ctx, "watchword", ""); err != nil {
		return nil, err
	}
	if _, err := postgres.Migrate(ctx, database.DSN("watchword")); err != nil {
		return nil, fail(exitFailed, "try a fresh directory with --data, or --ephemeral", "the tables cannot be made: %w", err)
	}
	keys := filepath.Join(dir, "keys")
	if _, err := os.Stat(keys); errors.Is(err, os.ErrNotExist) {
		if err := keyring.Create(keys); err != nil {
			return nil, err
		}
	}
	// Two vendors, so that one can be switched off in the inbox and the other is seen to take over.
	inbox, account := "http://"+listeners[2].Addr().String(), carriersim.New(carriersim.Options{Now: time.Now}).Account("twilio")
	secretFile := filepath.Join(dir, "simulator-secret")
	if err := writeWhole(secretFile, []byte(account.Secret+"\n")); err != nil {
		return nil, err
	}
	swapFile := filepath.Join(dir, "simulator-sim-swap")
	if err := writeWhole(swapFile, []byte(carriersim.SIMSwapSecret+"\n")); err != nil {
		return nil, err
	}
	sources := config.Sources{
		Env: []string{"WATCHWORD_DATABASE__DSN=" + database.DSN("watchword")},
		Flags: append([]string{
			"issuer=" + issuer, "keys.dir=" + keys, "log.level=warn", "log.format=text", "drain_timeout=5s",
			"listen=" + listeners[0].Addr().String(), "management_listen=" + listeners[3].Addr().String(),
			"sms.vendors.simulator.url=" + inbox, "sms.vendors.twilio.base_url=" + inbox + "/twilio", "sms.vendors.twilio.account=" + account.ID,
			"sms.vendors.twilio.secret_file=" + secretFile, "sms.vendors.twilio.sender=+12025550100", "sms.channels=sms,whatsapp",
			"mail.host=127.0.0.1", "mail.port=" + postPort, "mail.tls=none", "mail.from=Watchword <no-reply@login.example>",
			"sim_swap.url=" + inbox + "/simswap/v2", "sim_swap.token_url=" + inbox + "/simswap/token", "sim_swap.client_id=" + carriersim.SIMSwapClient,
			"sim_swap.secret_file=" + swapFile,
			"outbound.exempt_hosts=localhost,127.0.0.1,::1", "outbound.allow_http=true", // webhooks of whoever develops here
		}, p.configSet...),
	}
	cfg, _, err := config.Load(sources)
	if problems := config.Problems(err); len(problems) > 0 {
		return nil, &failure{code: exitUsage, err: fmt.Errorf("--set has %s", count(len(problems), "problem")), problems: problems}
	}
	if err != nil {
		return nil, err
	}
	if err := writeDevConfig(dir, database.DSN("watchword"), sources.Flags); err != nil {
		return nil, err
	}
	s, err := assemble(cfg)
	if err != nil {
		return nil, err
	}
	// Whoever develops signs in more often in an hour than people do, and nobody pays for the texts.
	for _, bounds := range []*factors.Limits{&s.signIns.Ledger.Limits, &s.gateway.Limits} {
		bounds.NumberHour.Burst, bounds.NumberDay.Burst, bounds.SubjectHour.Burst, bounds.Source.Burst = devSends, devSends, devSends, devSends
	}
	return s, nil
}

// devSends is how many codes a development server sends where a real one sends a few.
const devSends = 500

// devConfig is the file in the data directory that lets every other command find a development server.
const devConfig = "watchword.yaml"

// writeDevConfig writes what a development server was started with, each key=value of flags, and the connection string into a file of its own.
func writeDevConfig(dir, dsn string, flags []string) error {
	dsnFile := filepath.Join(dir, "dsn")
	if err := writeWhole(dsnFile, []byte(dsn+"\n")); err != nil {
		return err
	}
	keys := map[string]any{}
	for _, flag := range append([]string{"database.dsn_file=" + dsnFile}, flags...) {
		path, value, _ := strings.Cut(flag, "=")
		groups, group := strings.Split(path, "."), keys
		for _, name := range groups[:len(groups)-1] {
			inner, ok := group[name].(map[string]any)
			if !ok {
				inner = map[string]any{}
				group[name] = inner
			}
			group = inner
		}
		group[groups[len(groups)-1]] = value
	}
	data, err := yaml.Marshal(keys)
	if err != nil {
		return err
	}
	head := "# Written by watchword dev at every start, for the commands that administer this server: --config " + filepath.Join(dir, devConfig) + "\n"
	return writeWhole(filepath.Join(dir, devConfig), append([]byte(head), data...))
}

// demoDetails is a type of authorization_details to try things with: --authorization-details-type demo_account.
func demoDetails() oidc.DetailType {
	return &oidc.TextDetails{
		Name: "demo_account", Titles: map[string]string{"en": "see one account", "de": "ein Konto sehen"},
		Fields: []oidc.TextField{
			{Name: "account", Required: true, Labels: map[string]string{"en": "Account", "de": "Konto"}},
			{Name: "note", Labels: map[string]string{"en": "What for", "de": "Wofür"}},
		},
	}
}

// furnish makes the demo user and the demo application, or finds them again.
func (s *services) furnish(ctx context.Context, dir, issuer, demo, inbox string) (*world, error) {
	w := &world{
		Issuer: issuer, Config: filepath.Join(dir, devConfig), Inbox: inbox, Demo: demo, ClientID: demoClient, RedirectURI: app.RedirectURI(demo),
		Username: demoUsername, Password: demoPassword, Phone: demoPhone, Email: demoEmail, PID: os.Getpid(),
	}
	if _, err := s.signIns.Find(ctx, demoUsername); errors.Is(err, authn.ErrNoSubscriber) {
		number, err := sms.ParseNumber(demoPhone, "")
		if err != nil {
			return nil, err
		}
		phone, unique := smsotp.Phone(uuid.Nil, number)
		if _, err := s.signIns.Create(ctx, demoUsername, demoPassword, demoProfile(), authn.Binding{Authenticator: phone, Unique: unique}); err != nil {
			return nil, fmt.Errorf("demo user: %w", err)
		}
	} else if err != nil {
		return nil, err
	}
	r := oidc.Registration{
		Name: "Demo application", HomeURI: demo + "/", RedirectURIs: []string{w.RedirectURI}, PostLogoutRedirectURIs: []string{app.PostLogoutURI(demo)},
		FirstParty: true, AllowHTTP: true,
	}
	grant(&r, "authorization_code", "refresh_token", "client_credentials")
	secret, err := s.clients.Create(ctx, demoClient, r)
	secretFile := filepath.Join(dir, "demo-secret")
	if errors.Is(err, oidc.ErrClientExists) { // of an earlier start, perhaps on other ports
		if err := s.clients.Update(ctx, demoClient, r); err != nil {
			return nil, fmt.Errorf("demo application: %w", err)
		}
		secret, err = s.keptSecret(ctx, secretFile)
	}
	if err == nil {
		err = writeWhole(secretFile, []byte(secret+"\n"))
	}
	if err != nil {
		return nil, fmt.Errorf("demo application: %w", err)
	}
	w.ClientSecret = secret
	w.API = issuer
	if w.APIKey, err = s.demoKey(ctx, filepath.Join(dir, "demo-api-key"), false); err == nil {
		w.TestAPIKey, err = s.demoKey(ctx, filepath.Join(dir, "demo-test-api-key"), true)
	}
	return w, err
}

// furnishBank makes the bank, or finds it again. It authenticates with a key, and has everything on that banks need.
func (s *services) furnishBank(ctx context.Context, dir string, w *world, address string) error {
	file := filepath.Join(dir, "bank-key.jwk")
	key, err := keptKey(file)
	if err != nil {
		return fmt.Errorf("key of the bank: %w", err)
	}
	r := oidc.Registration{
		Name: "The Bank", HomeURI: address + "/", RedirectURIs: []string{bank.RedirectURI(address)}, SupportPhone: bankPhone, IDTokenAlg: string(jose.ES256),
		Keys: &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}}, RequirePush: true, PaymentAccount: true, DetailTypes: []string{transaction.DetailsType},
		Scopes: []string{"openid", "profile", api.Scope}, FirstParty: true, AllowHTTP: true,
	}
	set(&r.AuthMethod, "private_key_jwt")
	grant(&r, "authorization_code", "client_credentials", "ciba")
	_, err = s.clients.Create(ctx, bankClient, r)
	if errors.Is(err, oidc.ErrClientExists) {
		err = s.clients.Update(ctx, bankClient, r)
	}
	if err != nil {
		return fmt.Errorf("bank: %w", err)
	}
	w.Bank, w.BankClientID, w.BankKey = address, bankClient, jwk{key}
	return nil
}

// keptKey is the private key in a file, which is made if it is not there.
func keptKey(file string) (key jose.JSONWebKey, err error) {
	if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &key) == nil && !key.IsPublic() && key.Valid() { //nolint:gosec // in the data directory
		return key, nil
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return key, err
	}
	key = jose.JSONWebKey{Key: private, KeyID: uuid.NewString(), Algorithm: string(jose.ES256), Use: "sig"}
	data, err := key.MarshalJSON()
	if err != nil {
		return key, err
	}
	return key, writeWhole(file, append(data, '\n'))
}

// demoKey is the demo tenant's key of an earlier start, or a new one.
func (s *services) demoKey(ctx context.Context, file string, test bool) (string, error) {
	err := s.gateway.Tenants.Create(ctx, demoTenant, gateway.Settings{Service: "Demo", Email: true})
	if err != nil && !errors.Is(err, gateway.ErrTenantExists) {
		return "", fmt.Errorf("demo tenant: %w", err)
	}
	content, err := os.ReadFile(file) //nolint:gosec // in the data directory
	if kept := strings.TrimSpace(string(content)); err == nil {
		if stands, err := s.gateway.Tenants.Stands(ctx, kept); stands || err != nil {
			return kept, err
		}
	}
	_, key, err := s.gateway.Tenants.CreateKey(ctx, demoTenant, gateway.NewKey{Test: test, Scopes: gateway.Scopes(), Note: "watchword dev"})
	if err != nil {
		return "", fmt.Errorf("demo key: %w", err)
	}
	return key, writeWhole(file, []byte(key+"\n"))
}

// keptSecret is the demo application's secret of an earlier start: whoever wrote it down for an application of their own finds it unchanged. If
// the file is gone, or the secret was replaced since, there is a new one.
func (s *services) keptSecret(ctx context.Context, file string) (string, error) {
	c, err := s.clients.Get(ctx, demoClient)
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile(file) //nolint:gosec // in the data directory
	if kept := strings.TrimSpace(string(content)); err == nil && c.HasSecret(kept) {
		return kept, nil
	}
	return s.clients.RotateSecret(ctx, demoClient)
}

// demoProfile has every standard claim (OpenID Connect Core 5.1).
func demoProfile() authn.Profile {
	return authn.Profile{
		"name": "Dana Demo", "given_name": "Dana", "family_name": "Demo", "middle_name": "Q", "nickname": "Dee", "preferred_username": demoUsername,
		"profile": "https://example.com/dana", "picture": "https://example.com/dana.png", "website": "https://dana.example.com",
		"email": demoEmail, "email_verified": true, "gender": "female", "birthdate": "1990-04-01",
		"zoneinfo": "America/New_York", "locale": "en-US", "phone_number": demoPhone, "phone_number_verified": true,
		"address": map[string]any{
			"formatted": "1 Example Street\nWashington, DC 20001\nUnited States", "street_address": "1 Example Street",
			"locality": "Washington", "region": "DC", "postal_code": "20001", "country": "United States",
		},
	}
}

// answers waits until the issuer answers a request.
func answers(ctx context.Context, issuer string, running <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, issuer+"/.well-known/openid-configuration", nil)
		if err != nil {
			answered <- err
			return
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			err = res.Body.Close()
			if res.StatusCode != http.StatusOK {
				err = errors.Join(err, fmt.Errorf("the issuer answers %s", res.Status))
			}
		}
		answered <- err
	}()
	select {
	case err := <-running:
		if err == nil {
			err = context.Cause(ctx)
		}
		return err
	case err := <-answered:
		return err
	}
}

// writeReady writes the file that whoever started this server waits for. It holds a secret.
func writeReady(name string, w *world) error {
	data, err := json.MarshalIndent(w, "", "  ") //nolint:gosec // the file is for those who need the secret
	if err != nil {
		return err
	}
	return writeWhole(name, append(data, '\n'))
}

// writeWhole writes a file that its owner alone may read, whole or not at all: nobody reads half of it.
func writeWhole(name string, data []byte) error {
	temporary := name + "." + strings.ToLower(rand.Text()[:8])
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, name)
}

// welcome prints what to open.
func (p *Program) welcome(w *world, dir string, ephemeral bool, took time.Duration) {
	if p.format == "json" {
		p.encode(p.Stdout, w) //nolint:errcheck // nobody reads
		return
	}
	if p.quiet {
		return
	}
	link := func(address string) string {
		if !p.colour() {
			return address
		}
		return "\x1b[1m" + address + "\x1b[0m"
	}
	name := p.Name
	if name == "" {
		name = "watchword"
	}
	kept := "Data in " + dir
	if ephemeral {
		kept = "Nothing is kept"
	}
	fmt.Fprintf(p.Stdout, `
Watchword is ready, %d ms after PostgreSQL was.

  Demo application  %s
  Bank              %s
  Texts and mails   %s
  Account page      %s

  Sign in as        %s
  Password          %s
  Phone             %s

  Issuer            %s
  Add your own      %s client create shop --redirect-uri http://localhost:3000/callback --allow-http --config %s

  API key           %s
  For tests         %s

  %s. Press Ctrl-C to stop.
`, took.Milliseconds(), link(w.Demo), link(w.Bank), link(w.Inbox), link(w.Issuer+"/account"), w.Username, w.Password, w.Phone, w.Issuer, name, w.Config, w.APIKey, w.TestAPIKey, kept)
}

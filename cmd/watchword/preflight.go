package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/oidc"
)

// preflight finds everything that keeps a server from starting. It changes nothing. known are problems that the configuration has already: what
// rests on those keys is not looked at, everything else is.
func preflight(ctx context.Context, cfg *config.Config, known ...*config.Problem) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	sound := func(keys string) bool {
		return !slices.ContainsFunc(known, func(p *config.Problem) bool { return strings.HasPrefix(p.Key, keys) })
	}
	var found []error
	check := func(due bool, problem func() error) bool {
		if !due {
			return false
		}
		err := problem()
		found = append(found, err)
		return err == nil
	}
	keys := check(sound("keys."), func() error { return checkKeys(cfg) })
	check(sound("tls."), func() error { return checkCertificate(cfg) })
	check(sound("outbound."), func() error {
		_, err := newGuard(cfg)
		return err
	})
	check(true, func() error { return checkVendor(cfg, known) })
	check(sound("policy.") && sound("acr.") && sound("otp.") && sound("sms.service_name") && sound("issuer"), func() error { return checkPolicy(cfg) })
	check(sound("mail.") && sound("branding."), func() error { _, _, err := newNotices(cfg); return err })
	production := sound("issuer") && cfg.Production()
	tables := check(cfg.Database.DSN != "", func() error { return checkDatabase(ctx, cfg, production) })
	check(keys && tables, func() error { return checkSealed(ctx, cfg) })
	check(keys && len(known) == 0, func() error { return checkAssembly(cfg) })
	return errors.Join(found...)
}

// problemsOf lists what is wrong, whether the configuration or its surroundings.
func problemsOf(err error) []*config.Problem {
	var f *failure
	if errors.As(err, &f) {
		return f.problems
	}
	return config.Problems(err)
}

func checkKeys(cfg *config.Config) error {
	_, err := keyring.Load(cfg.Keys.Dir)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keyring.ErrMissing):
		return &config.Problem{Key: "keys.dir", What: oneLine(err),
			Cure: "make keys for a new database with: watchword key create; an existing database needs the keys that it was made with"}
	default:
		return &config.Problem{Key: "keys.dir", What: oneLine(err), Cure: "the files belong to the server's user alone (chmod 600); restore them from a backup if they are damaged"}
	}
}

// checkVendor finds out whether there is anybody who could carry a text, and whether the routes lead anywhere.
func checkVendor(cfg *config.Config, known []*config.Problem) error {
	told := func(keys string) bool {
		return slices.ContainsFunc(known, func(p *config.Problem) bool {
			return strings.HasPrefix(p.Key, keys) || strings.HasPrefix(p.Where, config.EnvPrefix+"SMS__VENDORS")
		})
	}
	if len(cfg.SMS.Vendors.Used()) == 0 {
		if told("sms.vendor") {
			return nil // settings were meant
		}
		return &config.Problem{Key: "sms.vendors", What: "no vendor has settings: codes could not be sent",
			Cure: "give one its settings, or for a trial run watchword sim and set sms.vendors.simulator.url to its address"}
	}
	_, err := newDelivery(cfg, keyring.Ephemeral(), nil)
	var found []error
	for _, problem := range config.Problems(err) {
		if !slices.ContainsFunc(known, func(p *config.Problem) bool { return p.Key == problem.Key }) {
			found = append(found, problem)
		}
	}
	return errors.Join(found...)
}

// warnings are what a server starts with all the same, and an operator should know.
func warnings(cfg *config.Config) (said []string) {
	used := cfg.SMS.Vendors.Used()
	for _, v := range vendors(cfg) {
		if v.closed != "" && slices.Contains(used, v.key) {
			said = append(said, fmt.Sprintf("sms.vendors.%s: receipts and replies are refused: %s is not set", v.key, v.closed))
		}
	}
	return said
}

// checkSealed finds out whether the key files are those that the database was made with.
func checkSealed(ctx context.Context, cfg *config.Config) error {
	ring, err := keyring.Load(cfg.Keys.Dir)
	if err != nil {
		return &config.Problem{Key: "keys.dir", What: oneLine(err)}
	}
	db, err := postgres.Open(postgres.Config{DSN: cfg.Database.DSN.Reveal(), MaxConns: 2, Pooled: cfg.Database.Pooled})
	if err != nil {
		return troubleOf("database.dsn", err)
	}
	defer db.Close() //nolint:errcheck // nothing was begun
	keys := &oidc.Keys{DB: db, Seal: ring}
	if err := keys.Refresh(ctx); err != nil {
		return troubleOf("keys.dir", err)
	}
	if err := keys.Ready(); err != nil {
		return &config.Problem{What: "the database lacks signing keys: " + oneLine(err), Cure: "make them with: watchword key create"}
	}
	return nil
}

// checkAssembly finds out whether the parts take the configuration.
func checkAssembly(cfg *config.Config) error {
	s, err := assemble(cfg)
	if len(config.Problems(err)) > 0 || errors.Is(err, postgres.ErrDSN) {
		return nil // told already
	}
	if err != nil {
		return &config.Problem{What: oneLine(err), Cure: "change the configuration accordingly"}
	}
	return s.db.Close()
}

// troubleOf is what kept the database from answering, as a problem of the key that is most likely at fault.
func troubleOf(key string, err error) error {
	what, cure := databaseTrouble(err)
	if what == "" {
		what = oneLine(err)
	}
	return &config.Problem{Key: key, What: what, Cure: cure}
}

func checkCertificate(cfg *config.Config) error {
	if cfg.TLS.CertFile == "" {
		return nil
	}
	if _, err := tls.LoadX509KeyPair(cfg.TLS.CertFile, cfg.TLS.KeyFile); err != nil {
		return &config.Problem{Key: "tls.cert_file", What: oneLine(err), Cure: "name a PEM certificate chain and the key that belongs to it"}
	}
	return nil
}

func checkDatabase(ctx context.Context, cfg *config.Config, production bool) error {
	var problems []error
	for _, o := range []struct {
		key string
		dsn config.Secret
	}{{"database.dsn", cfg.Database.DSN}, {"database.direct_dsn", cfg.Database.DirectDSN}} {
		if o.dsn == "" {
			continue
		}
		if problem := checkDSN(ctx, o.key, o.dsn.Reveal(), production); problem != nil {
			problems = append(problems, problem)
		}
	}
	if len(problems) > 0 {
		return errors.Join(problems...) // nothing more can be asked
	}
	steps, err := postgres.Migrations(ctx, directDSN(cfg))
	if err != nil {
		return &config.Problem{Key: "database.dsn", What: "the tables cannot be looked at: " + oneLine(err), Cure: "give the role the right to read its own schema"}
	}
	pending := 0
	for _, step := range steps {
		if !step.Applied {
			pending++
		}
	}
	if pending > 0 {
		return &config.Problem{Key: "database.dsn", What: fmt.Sprintf("the database lacks %s", count(pending, "migration")), Cure: "run: watchword migrate up"}
	}
	return nil
}

func checkDSN(ctx context.Context, key, dsn string, production bool) error {
	parsed, err := pq.NewConfig(dsn)
	if err != nil {
		return &config.Problem{Key: key, What: "is not a connection string", Cure: dsnCure} // the cause could quote the password
	}
	if production && !onThisMachine(parsed) && parsed.SSLMode != pq.SSLModeVerifyFull && parsed.SSLMode != pq.SSLModeVerifyCA {
		return &config.Problem{Key: key, What: "reaches another machine without verifying whom it talks to", Cure: "add sslmode=verify-full, and sslrootcert if the authority is your own"}
	}
	connector, err := pq.NewConnectorConfig(parsed)
	if err != nil {
		return &config.Problem{Key: key, What: "is not a connection string", Cure: dsnCure}
	}
	db := sql.OpenDB(connector)
	defer db.Close() //nolint:errcheck // one statement was run
	var superuser bool
	if err := db.QueryRowContext(ctx, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user").Scan(&superuser); err != nil {
		return troubleOf(key, err)
	}
	if superuser && production {
		return &config.Problem{Key: key, What: "the role is a superuser", Cure: "make one that owns nothing but its database: CREATE ROLE watchword LOGIN; CREATE DATABASE watchword OWNER watchword"}
	}
	return nil
}

// onThisMachine reports whether c is a Unix socket or loopback.
func onThisMachine(c pq.Config) bool {
	if strings.HasPrefix(c.Host, "/") || strings.HasPrefix(c.Host, "@") {
		return true
	}
	if c.Hostaddr.IsValid() {
		return c.Hostaddr.IsLoopback()
	}
	ip, err := netip.ParseAddr(c.Host)
	return c.Host == "localhost" || err == nil && ip.IsLoopback()
}

// directDSN reaches the database server itself.
func directDSN(cfg *config.Config) string {
	if cfg.Database.DirectDSN != "" {
		return cfg.Database.DirectDSN.Reveal()
	}
	return cfg.Database.DSN.Reveal()
}

// oneLine shortens an error to what an operator can act on.
func oneLine(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op
	}
	return outward(strings.ReplaceAll(strings.TrimPrefix(err.Error(), "pq: "), "\n", "; "))
}

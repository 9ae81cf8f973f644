package config_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-auth/watchword/internal/config"
)

var update = flag.Bool("update", false, "write the reference page anew")

// minimal is the least environment that is complete.
var minimal = []string{"WATCHWORD_ISSUER=https://login.example.com", "WATCHWORD_DATABASE__DSN=postgres://db/watchword"}

func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "watchword.yaml")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLayers(t *testing.T) {
	t.Parallel()
	first := file(t, "issuer: https://one.example.com\notp:\n  lifetime: 9m\n  digits: 7\nsms:\n  countries: [us, DE]\ntrusted_proxies: 10.1.2.3/8, 192.0.2.7\n")
	second := file(t, "otp: {lifetime: 8m}\nlog: {level: warn}\npassword: {memory: 64MiB}\n")
	c, origins, err := config.Load(config.Sources{
		Files: []string{first, second},
		Env:   []string{"WATCHWORD_OTP__LIFETIME=7m", "WATCHWORD_DATABASE__DSN=host=/run", "PATH=/bin", "WATCHWORD_SERVICE_HOST=10.0.0.1", "WATCHWORD_PORT_8080_TCP=x", "WATCHWORD_CONFIG=x", "WATCHWORD_LISTEN=", "WATCHWORD_NONSENSE="},
		Flags: []string{"log.level=debug"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(c.Issuer, c.OTP, c.Log, c.SMS.Countries, c.TrustedProxies, int64(c.Password.Memory), c.Listen)
	want := "https://one.example.com{7 7m0s 5}{debug json}[US DE][10.0.0.0/8 192.0.2.7/32]67108864127.0.0.1:8080"
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("loaded %s, want %s", got, want)
	}
	wantOrigins := map[string]string{"otp.lifetime": "WATCHWORD_OTP__LIFETIME", "otp.digits": first + ":4", "log.level": "--set", "password.memory": second + ":3"}
	for key, where := range wantOrigins {
		if origins[key] != where {
			t.Errorf("origin of %s is %q, want %q", key, origins[key], where)
		}
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	secret := file(t, "postgres://watchword:hunter2@db/watchword\n")
	tests := []struct {
		name       string
		file       string
		env, flags []string
		want       []string // "where: key: what | cure", FILE for the file's name
	}{
		{name: "nothing given", want: []string{
			"issuer: is not set | set it in a file given with --config, or in WATCHWORD_ISSUER",
			"database.dsn: is not set | name a file that holds it in WATCHWORD_DATABASE__DSN_FILE, or set WATCHWORD_DATABASE__DSN",
		}},
		{name: "misspelt", env: minimal, file: "otp:\n  lifetme: 5m\nlistn: :80\n", want: []string{
			"FILE:2: otp.lifetme: unknown key | did you mean otp.lifetime?",
			"FILE:3: listn: unknown key | did you mean listen?",
		}},
		{name: "in the wrong place", env: minimal, file: "digits: 6\n", want: []string{"FILE:1: digits: unknown key | did you mean otp.digits?"}},
		{name: "unheard of", env: minimal, file: "blockchain: true\n", want: []string{"FILE:1: blockchain: unknown key | see all keys with: watchword config schema"}},
		{name: "misspelt variable", env: append([]string{"WATCHWORD_OTP__DIGIT=6"}, minimal...), want: []string{
			"WATCHWORD_OTP__DIGIT: unknown variable | did you mean WATCHWORD_OTP__DIGITS?",
		}},
		{name: "AD-10 above the ceilings", env: minimal, file: "otp:\n  attempts: 50\n  lifetime: 1h\n  digits: 4\nsession: {idle: 2h, absolute: 48h}\ntokens: {code_ttl: 10m}\n", want: []string{
			"FILE:4: otp.digits: 4 is less than 6 | set at least 6",
			"FILE:3: otp.lifetime: 1h0m0s is more than 10m, which no configuration can raise | set at most 10m",
			"FILE:2: otp.attempts: 50 is more than 5, which no configuration can raise | set at most 5",
			"FILE:5: session.idle: 2h0m0s is more than 1h, which no configuration can raise | set at most 1h",
			"FILE:5: session.absolute: 48h0m0s is more than 24h, which no configuration can raise | set at most 24h",
			"FILE:6: tokens.code_ttl: 10m0s is more than 60s, which no configuration can raise | set at most 60s",
		}},
		{name: "wrong types", env: minimal, file: "otp: {digits: six, lifetime: 600}\ndatabase: {pooled: maybe}\nlisten: [a, b]\nsession: 5\n", want: []string{
			"FILE:4: session: keys are expected here | write key: value, one a line",
			"FILE:3: listen: a list where a single value is expected | see: watchword config schema",
			"FILE:2: database.pooled: neither true nor false | see: watchword config schema",
			"FILE:1: otp.digits: not a whole number | see: watchword config schema",
			"FILE:1: otp.lifetime: not a duration such as 30s, 10m or 12h | see: watchword config schema",
		}},
		{name: "twice", env: minimal, file: "listen: :80\nlisten: :81\n", want: []string{"FILE:2: listen: is given twice | remove one of them"}},
		{name: "secret twice in one place", env: []string{minimal[0], "WATCHWORD_DATABASE__DSN=x", "WATCHWORD_DATABASE__DSN_FILE=" + secret}, want: []string{
			"WATCHWORD_DATABASE__DSN: database.dsn: is given both as a value and as a file | leave only the file",
		}},
		{name: "secret's file is missing", env: []string{minimal[0], "WATCHWORD_DATABASE__DSN_FILE=/nowhere/dsn"}, want: []string{
			"WATCHWORD_DATABASE__DSN_FILE: database.dsn: file /nowhere/dsn does not exist | write the connection string into it, and let nobody but the server's user read it (chmod 600)",
		}},
		{name: "AD-4 password in the file", env: minimal[:1], file: "database:\n  dsn: postgres://watchword:hunter2@db/watchword\n", want: []string{
			"FILE:2: database.dsn: holds a password in the configuration file | put it into a file of its own and name that with database.dsn_file, or use WATCHWORD_DATABASE__DSN",
		}},
		{name: "AD-11 secret in an argument", env: minimal, flags: []string{"database.dsn=postgres://u:hunter2@db/w"}, want: []string{
			"--set: database.dsn: is a secret, and arguments are seen by everybody on the machine | use database.dsn_file or WATCHWORD_DATABASE__DSN",
		}},
		{name: "AD-4 http issuer", env: []string{"WATCHWORD_ISSUER=http://login.example.com", minimal[1]}, want: []string{
			"WATCHWORD_ISSUER: issuer: is not https | use https; http is for loopback (http://localhost:8080) only",
		}},
		{name: "issuer with a query", env: []string{"WATCHWORD_ISSUER=https://login.example.com?a", minimal[1]}, want: []string{
			"WATCHWORD_ISSUER: issuer: has a query, a fragment or a user name | leave only scheme, host and port (OpenID Connect Discovery 1.0, 3)",
		}},
		{name: "issuer with a slash", env: []string{"WATCHWORD_ISSUER=https://login.example.com/", minimal[1]}, want: []string{
			"WATCHWORD_ISSUER: issuer: has a path | leave only scheme, host and port, without a slash at the end",
		}},
		{name: "issuer with the default port", env: []string{"WATCHWORD_ISSUER=https://login.example.com:443", minimal[1]}, want: []string{
			"WATCHWORD_ISSUER: issuer: names the port that is meant without it | leave the port out, as browsers do",
		}},
		{name: "two levels of one name", env: minimal, file: "acr: {password: a, restricted: a}\n", want: []string{
			"FILE:1: acr.restricted: names a second level by the same name | give every level a name of its own",
		}},
		{name: "country", env: minimal, file: "sms:\n  countries: [US, Atlantis]\n", want: []string{
			`FILE:2: sms.countries: "Atlantis" is not a country | write ISO 3166-1 codes of two letters, such as US`,
		}},
		{name: "half of TLS", env: minimal, file: "tls: {cert_file: /c.pem}\n", want: []string{
			"FILE:1: tls.cert_file: a certificate and its key go together | set both tls.cert_file and tls.key_file, or neither",
		}},
		{name: "simulator elsewhere", env: minimal, file: "sms: {vendors: {simulator: {url: http://192.0.2.1/}}}\n", want: []string{
			"FILE:1: sms.vendors.simulator.url: leaves this machine: a simulator shows every code to whoever asks | use the simulator on loopback only",
		}},
		{name: "WHK-5 exempt hosts", env: minimal, file: "outbound:\n  exempt_hosts: [\"*.example.com\", \"https://a.example.com\", \"a.example.com:443\", b.example.com, \"::1\"]\n  allow_http: true\n", want: []string{
			`FILE:2: outbound.exempt_hosts: "*.example.com" is not the name of one host | write names alone, without scheme, port or wildcard: hooks.internal.example.com`,
			`FILE:2: outbound.exempt_hosts: "https://a.example.com" is not the name of one host | write names alone, without scheme, port or wildcard: hooks.internal.example.com`,
			`FILE:2: outbound.exempt_hosts: "a.example.com:443" is not the name of one host | write names alone, without scheme, port or wildcard: hooks.internal.example.com`,
			"FILE:3: outbound.allow_http: is for development: what is sent could be read and altered on the way | use https, with outbound.ca_file for an authority of your own",
		}},
		{name: "flags", env: minimal, flags: []string{"otp.lifetime", "log.level=loud"}, want: []string{
			"--set: is not key=value | write --set otp.lifetime=5m",
			`--set: log.level: "loud" is not one of the choices | choose one of debug, info, warn, error`,
		}},
		{name: "not YAML, reported alone", env: []string{"WATCHWORD_NONSENSE=1"}, file: "otp: [\n", want: []string{
			"FILE: is not YAML: line 1: did not find expected node content | indent with spaces, and quote values that hold : or #",
		}},
		{name: "two documents", file: "listen: :80\n---\nlisten: :81\n", want: []string{
			"FILE: holds more than one document | remove the line with ---, or use several files",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			src, name := config.Sources{Env: tt.env, Flags: tt.flags}, "no file"
			if tt.file != "" {
				name = file(t, tt.file)
				src.Files = []string{name}
			}
			_, _, err := config.Load(src)
			got := map[string]bool{}
			for _, p := range config.Problems(err) {
				got[strings.ReplaceAll(p.Error()+" | "+p.Cure, name, "FILE")] = true
			}
			want := map[string]bool{}
			for _, w := range tt.want {
				want[w] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("a secret is in the error")
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	t.Parallel()
	_, _, err := config.Load(config.Sources{Files: []string{"/nowhere/watchword.yaml"}})
	if len(config.Problems(err)) != 1 {
		t.Fatalf("Load = %v, want one problem", err)
	}
}

func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()
	dsn := file(t, "postgres://watchword:hunter2@db/watchword\n")
	for _, src := range []config.Sources{
		{Env: []string{minimal[0], "WATCHWORD_DATABASE__DSN_FILE=" + dsn}},
		{Env: minimal[:1], Files: []string{file(t, "database:\n  dsn_file: "+dsn+"\n")}},
		{Env: minimal[:1], Flags: []string{"database.dsn_file=" + dsn}},
	} {
		c, origins, err := config.Load(src)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Database.DSN.Reveal(); got != "postgres://watchword:hunter2@db/watchword" {
			t.Errorf("DSN = %q", got)
		}
		shown, err := c.JSON()
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{c.YAML(origins), string(shown), fmt.Sprintf("%v %+v %#v", c, c, c)} {
			if strings.Contains(text, "hunter2") {
				t.Errorf("the secret is shown in %s", text)
			}
		}
	}
}

// A file written by YAML or Sample is a file that Load reads.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	c, _, err := config.Load(config.Sources{Env: minimal})
	if err != nil {
		t.Fatal(err)
	}
	shown := strings.ReplaceAll(c.YAML(nil), `"[secret]"`, `"host=/run"`)
	again, _, err := config.Load(config.Sources{Files: []string{file(t, shown)}})
	if err != nil {
		t.Fatal(err)
	}
	again.Database.DSN = c.Database.DSN
	if diff := cmp.Diff(c.YAML(nil), again.YAML(nil)); diff != "" {
		t.Error(diff)
	}
	dsn := file(t, "host=/run")
	sample := config.Sample(map[string]string{"issuer": "http://localhost:8080", "database.dsn": dsn})
	if _, _, err := config.Load(config.Sources{Files: []string{file(t, sample)}}); err != nil {
		t.Errorf("sample: %v", err)
	}
	if _, _, err := config.Load(config.Sources{Files: []string{file(t, strings.ReplaceAll(sample, "#", ""))}, Env: minimal}); err == nil {
		t.Error("comments of the sample were taken for keys without complaint")
	}
}

func TestSchemaIsJSON(t *testing.T) {
	t.Parallel()
	schema, err := config.Schema()
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Properties map[string]struct {
			Properties map[string]any `json:"properties"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(schema, &v); err != nil {
		t.Fatal(err)
	}
	if v.Properties["database"].Properties["dsn_file"] == nil || v.Properties["otp"].Properties["lifetime"] == nil {
		t.Errorf("schema lacks keys:\n%s", schema)
	}
}

func TestReferencePage(t *testing.T) {
	t.Parallel()
	const name = "../../docs/configuration.md"
	if *update {
		if err := os.WriteFile(name, []byte(config.Markdown()), 0o644); err != nil { //nolint:gosec // a page to read
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Markdown(), string(have)); diff != "" {
		t.Errorf("docs/configuration.md is out of date; run: go test ./internal/config -update\n%s", diff)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]config.Size{"0B": 0, "19MiB": 19 << 20, "64KiB": 64 << 10, "1GiB": 1 << 30, "1536B": 1536} {
		got, err := config.ParseSize(text)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
		if again, err := config.ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%q prints as %q", text, got)
		}
	}
	for _, text := range []string{"", "19", "MiB", "-1MiB", "1TB", "9999999999999GiB", "1.5MiB"} {
		if got, err := config.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestProduction(t *testing.T) {
	t.Parallel()
	for issuer, want := range map[string]bool{
		"https://login.example.com": true, "https://localhost": true, "http://localhost:8080": false, "http://127.0.0.1:1": false,
		"http://[::1]:8080": false, "http://app.localhost": false, "http://192.0.2.1": true, "http://localhost.example.com": true,
	} {
		c := config.Default()
		c.Issuer = issuer
		if got := c.Production(); got != want {
			t.Errorf("Production with %s = %v, want %v", issuer, got, want)
		}
	}
}

func TestCheckOfOneThatWasMade(t *testing.T) {
	t.Parallel()
	c := config.Default()
	c.Issuer, c.Database.DSN = "http://localhost:8080", "host=/run"
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	c.OTP.Lifetime = time.Hour
	if err := c.Check(); len(config.Problems(err)) != 1 {
		t.Fatalf("Check = %v, want one problem", err)
	}
}

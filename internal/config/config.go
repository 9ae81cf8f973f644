// Package config is the operator's configuration: one Go struct, [Config], whose tags say everything there is to know
// about a key: its default, its bounds, whether it is secret, whether a running server takes a new value, and what it is for. The
// reference page, the JSON Schema, the sample file and the list of variables are made from the same tags.
//
// # Layers
//
// Defaults, then YAML files in the order given, then environment variables (WATCHWORD_OTP__LIFETIME is otp.lifetime), then
// flags: each layer replaces single keys of those before. A secret may also be given as the name of a file that holds it: key dsn_file,
// variable WATCHWORD_DATABASE__DSN_FILE. Giving both in one place is an error, because it is never clear which was meant.
//
// # Refusals
//
// A key that nobody knows is an error that names the nearest one that exists, with file and line: a misspelt limit must not quietly
// be the default. Ceilings are compiled in. All problems are reported at once, each with its cure; only a file that is not
// YAML is reported alone, because nothing after it means anything. The value of a secret is in no message and in no print.
package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/language"
)

// Config is every key there is. Tags: key (name in YAML), default, min and max (hard bounds), doc, unit of nothing: durations
// and sizes carry their own; secret and reload are "true" where they apply; required keys have no default.
type Config struct {
	Issuer           string         `key:"issuer" required:"true" doc:"URL under which browsers and applications reach this server. It decides host, cookies, links and metadata. https, except on loopback."`
	Listen           string         `key:"listen" default:"127.0.0.1:8080" doc:"Address and port for browsers and applications."`
	ManagementListen string         `key:"management_listen" default:"127.0.0.1:9464" doc:"Address and port for /healthz, /readyz and /metrics. Never reachable from outside."`
	TrustedProxies   []netip.Prefix `key:"trusted_proxies" doc:"Networks of the reverse proxies in front, as CIDRs. Only what they forward is believed about a client's address. Empty: nobody is believed."`
	DrainTimeout     time.Duration  `key:"drain_timeout" default:"30s" min:"0s" max:"5m" doc:"How long a stopping server lets requests finish."`
	DefaultLocale    string         `key:"default_locale" default:"en" doc:"Language of pages and texts when nobody chose another."`

	TLS      TLS      `key:"tls"`
	Database Database `key:"database"`
	Keys     Keys     `key:"keys"`
	OTP      OTP      `key:"otp"`
	SMS      SMS      `key:"sms"`
	Gateway  Gateway  `key:"gateway"`
	Payments Payments `key:"payments"`
	CIBA     CIBA     `key:"ciba"`
	Mail     Mail     `key:"mail"`
	Password Password `key:"password"`
	Session  Session  `key:"session"`
	Recovery Recovery `key:"recovery"`
	SIMSwap  SIMSwap  `key:"sim_swap"`
	Tokens   Tokens   `key:"tokens"`
	ACR      ACR      `key:"acr"`
	Policy   Policy   `key:"policy"`
	Branding Branding `key:"branding"`
	Clients  Clients  `key:"clients"`
	Webhooks Webhooks `key:"webhooks"`
	Outbound Outbound `key:"outbound"`
	Log      Log      `key:"log"`
}

// TLS of the server itself.
type TLS struct {
	CertFile string `key:"cert_file" doc:"PEM certificate chain. Empty: TLS ends at the reverse proxy."`
	KeyFile  string `key:"key_file" doc:"PEM private key of the certificate."`
}

// Database is PostgreSQL.
type Database struct {
	DSN       Secret `key:"dsn" required:"true" secret:"true" doc:"Connection string, as a URL or as key=value pairs."`
	DirectDSN Secret `key:"direct_dsn" secret:"true" doc:"Connection string that reaches the server itself, for migrations and notifications. Only needed when database.dsn leads to a pooler."`
	MaxConns  int    `key:"max_conns" default:"16" min:"2" max:"1000" doc:"Most connections that are open at once."`
	Pooled    bool   `key:"pooled" default:"false" doc:"A transaction pooler stands behind database.dsn: statements are not prepared."`
}

// Keys live outside the database.
type Keys struct {
	Dir string `key:"dir" default:"/etc/watchword/keys" doc:"Directory of the key files that seal and hash what the database holds. Only the server's user may read them."`
}

// OTP bounds security codes.
type OTP struct {
	Digits   int           `key:"digits" default:"6" min:"6" max:"8" doc:"Digits of a security code."`
	Lifetime time.Duration `key:"lifetime" default:"10m" min:"1m" max:"10m" doc:"How long a security code is good (NIST SP 800-63B-4, 3.1.3.2)."`
	Attempts int           `key:"attempts" default:"5" min:"1" max:"5" doc:"Wrong codes that end a challenge (Regulation (EU) 2018/389, Art. 4(3)(b))."`
}

// SMS is how texts are carried.
type SMS struct {
	ServiceName string   `key:"service_name" default:"Watchword" doc:"Name of the service in text messages. Short, in characters of the GSM alphabet."`
	Countries   []string `key:"countries" default:"AT,AU,BE,BG,CA,CH,CY,CZ,DE,DK,EE,ES,FI,FR,GB,GR,HR,HU,IE,IN,IS,IT,JP,KR,LI,LT,LU,LV,MT,NL,NO,NZ,PL,PT,RO,SE,SG,SI,SK,US" doc:"Countries that are texted, as ISO 3166-1 codes; * for all of them. Name those where your people are: texts to numbers abroad that earn by receiving them are the most common fraud."`
	Channels    []string `key:"channels" default:"sms" doc:"Ways to a phone in the order in which they are tried, where a route does not say: sms, whatsapp, voice."`
	Routes      []string `key:"routes" doc:"Rules that choose vendors; the first that matches decides. Words country=, prefix=, purpose=, channel=, vendor= with one or more values, separated by | (or commas in YAML), and order=cost. Example: country=FR|BE vendor=octopush|twilio"`
	DailyBudget int      `key:"daily_budget" default:"10000" min:"1" max:"100000000" doc:"Most text messages in 24 hours, over everybody."`
	Concurrency int      `key:"concurrency" default:"32" min:"1" max:"1000" doc:"Calls to vendors at once."`
	Vendors     Vendors  `key:"vendors"`
}

// Mail is the server that takes mails.
type Mail struct {
	Host     string        `key:"host" doc:"Mail server that takes mails by SMTP. Empty: none are sent, and people are told by text message alone what happens to their accounts."`
	Port     int           `key:"port" default:"0" min:"0" max:"65535" doc:"Its port. 0: the usual one, 587 for starttls, 465 for implicit, 25 for none."`
	TLS      string        `key:"tls" default:"starttls" enum:"starttls,implicit,none" doc:"Protection of the connection: starttls from the first command on, implicit from the first byte on (RFC 8314), none for a server on this machine only. Certificates are always verified."`
	CAFile   string        `key:"ca_file" doc:"PEM certificates of the authority that the mail server's certificate comes from. Empty: those that the system trusts."`
	Username string        `key:"username" doc:"User name at the mail server. Empty: it asks for none."`
	Password Secret        `key:"password" secret:"true" doc:"Password at the mail server."`
	From     string        `key:"from" doc:"Sender, such as Example <no-reply@example.com>. Required with mail.host."`
	ReplyTo  string        `key:"reply_to" doc:"Where answers go, in the same form. Empty: to mail.from."`
	Timeout  time.Duration `key:"timeout" default:"15s" min:"1s" max:"25s" doc:"How long connecting may take, and the conversation after it."`
}

// Gateway is the API by which other programs verify phones.
type Gateway struct {
	Enabled     bool `key:"enabled" default:"true" doc:"Serve /v1/verifications and /otp/*. Without a tenant nobody can use them."`
	DailyBudget int  `key:"daily_budget" default:"1000" min:"1" max:"100000000" doc:"Most text messages in 24 hours of one tenant, unless its own settings say otherwise. sms.daily_budget bounds all of them together."`
	Rate        int  `key:"rate" default:"500" min:"1" max:"100000" doc:"Most requests a second with one key, to one process."`
}

// Payments that people confirm.
type Payments struct {
	PhoneHold time.Duration `key:"phone_hold" default:"24h" min:"0s" max:"720h" doc:"How long a phone has to have been bound before payments can be confirmed with it: whoever has just taken over an account cannot move money. Shorter than 24h is for trying things out."`
}

// CIBA is how applications ask in the background.
type CIBA struct {
	Hold time.Duration `key:"hold" default:"25s" min:"0s" max:"25s" doc:"How long a poll waits for the person's answer before it is told authorization_pending (CIBA Core 1.0, 10.1). Reverse proxies have to wait longer. 0s: every poll is answered at once."`
}

// Password bounds what checking passwords may cost.
type Password struct {
	Memory      Size `key:"memory" default:"19MiB" min:"19MiB" max:"1GiB" doc:"Memory of one argon2id computation. Passwords are hashed anew when this rises and their owner signs in."`
	Time        int  `key:"time" default:"2" min:"2" max:"20" doc:"Passes of one argon2id computation."`
	Concurrency int  `key:"concurrency" default:"2" min:"1" max:"256" doc:"Computations at once. Memory in use is at most this many times password.memory."`
	Queue       int  `key:"queue" default:"64" min:"1" max:"10000" doc:"Sign-ins that may wait for a computation. More are told to come back (503)."`
}

// Session is the browser's.
type Session struct {
	Idle     time.Duration `key:"idle" default:"30m" min:"1m" max:"1h" doc:"A session that nobody used this long ends (NIST SP 800-63B-4, 5.2)."`
	Absolute time.Duration `key:"absolute" default:"12h" min:"5m" max:"24h" doc:"Every session ends after this long."`
	SignIn   time.Duration `key:"sign_in" default:"1h" min:"5m" max:"1h" doc:"How long one sign-in may take."`
	Remember time.Duration `key:"remember" default:"720h" min:"1h" max:"720h" doc:"How long a browser is remembered, where policy.rules say remember=on."`
}

// Recovery is how people get back in who have forgotten a password or lost a factor.
type Recovery struct {
	Enabled    bool          `key:"enabled" default:"true" doc:"People can get back in by themselves. false: they are told to ask the people who run the service."`
	Wait       time.Duration `key:"wait" default:"24h" min:"1h" max:"168h" doc:"How long what an administrator started is held when no second one agrees, and how long people wait in place of a second proof where recovery.alone allows it."`
	Alone      bool          `key:"alone" default:"false" doc:"Whoever knows the password and gives one other proof may wait in place of the second. People are told by every way, and can stop it from each. NIST SP 800-63B-4, 4.2.2.2, wants two proofs."`
	Life       time.Duration `key:"life" default:"1h" min:"5m" max:"24h" doc:"How long a try, and a link by mail, is good (NIST SP 800-63B-4, 4.2.1.2)."`
	FreshPhone time.Duration `key:"fresh_phone" default:"24h" min:"0s" max:"720h" doc:"A phone that was added later than this recovers nothing yet."`
}

// SIMSwap asks the network whether a number's SIM was changed.
type SIMSwap struct {
	URL      string        `key:"url" doc:"CAMARA SIM Swap API that is asked before a code is texted in a recovery, for a step-up or for a payment, with its version: https://network.example/sim-swap/v2. Empty: nobody is asked."`
	TokenURL string        `key:"token_url" doc:"Where its access tokens come from (RFC 6749, 4.4). Required with sim_swap.url."`
	ClientID string        `key:"client_id" doc:"Client id there."`
	Secret   Secret        `key:"secret" secret:"true" doc:"Client secret there."`
	MaxAge   time.Duration `key:"max_age" default:"72h" min:"1h" max:"2400h" doc:"How long after a change texts are held back, in whole hours."`
	Open     bool          `key:"open" default:"false" doc:"Text codes also when the network does not answer. false: they are held back then, and people use another way. Either is in the audit."`
	Timeout  time.Duration `key:"timeout" default:"2s" min:"100ms" max:"5s" doc:"How long one look-up may take."`
}

// Tokens that applications get.
type Tokens struct {
	CodeTTL    time.Duration `key:"code_ttl" default:"60s" min:"5s" max:"60s" doc:"Life of an authorization code."`
	PushedTTL  time.Duration `key:"pushed_ttl" default:"60s" min:"5s" max:"10m" doc:"How long a pushed authorization request may be opened (RFC 9126, 2.2)."`
	DPoPNonce  bool          `key:"dpop_nonce" default:"false" doc:"Proofs of possession (DPoP) have to hold a nonce of this server, so that none can be made in advance (RFC 9449, 8). Costs applications a second request now and then."`
	AccessTTL  time.Duration `key:"access_ttl" default:"10m" min:"1m" max:"1h" doc:"Life of an access token and of an ID Token."`
	RefreshTTL time.Duration `key:"refresh_ttl" default:"720h" min:"1h" max:"8760h" doc:"Life of a refresh token, over all its rotations."`
}

// ACR names the levels that tokens tell.
type ACR struct {
	Recovery     string `key:"recovery" default:"urn:watchword:acr:recovery" doc:"acr of a session that may only repair its account."`
	Password     string `key:"password" default:"urn:watchword:acr:1" doc:"acr of a password alone."`
	Restricted   string `key:"restricted" default:"urn:watchword:acr:2" doc:"acr of a password and a text message, or a backup code."`
	Unrestricted string `key:"unrestricted" default:"urn:watchword:acr:3" doc:"acr of a password and an authenticator app."`
}

// Policy is what every sign-in has to reach, whatever the application asks for.
type Policy struct {
	Floor string   `key:"floor" doc:"acr that every sign-in reaches at least, where neither a rule nor the application's registration names one. Empty: that of acr.restricted. Whoever has a second factor is asked for it in any case."`
	Enrol bool     `key:"enrol" default:"true" doc:"Somebody who has no second factor may bind one during a sign-in that wants one, where no rule says otherwise. false: they are told to ask for one."`
	Rules []string `key:"rules" doc:"Rules, one a line: conditions client=, group=, from= (networks), scope=, acr=, and what holds then: floor= (an acr), factor= (kinds), remember=on or off, enrol=on or off. Several values are separated by | (or commas in YAML). The first rule that matches decides; those with scope or acr only tighten. Example: group=staff from=10.0.0.0/8 remember=on"`
}

// Branding is what pages show.
type Branding struct {
	Name             string `key:"name" default:"Watchword" doc:"Name of the service on pages."`
	SupportURL       string `key:"support_url" doc:"Where people find help."`
	PrivacyURL       string `key:"privacy_url" doc:"Privacy notice."`
	AccessibilityURL string `key:"accessibility_url" doc:"Accessibility statement."`
	Contact          string `key:"contact" doc:"Whom people tell that something on their account was not them: a telephone number or a mail address of at most 24 characters, shown in notices. Never a web address. Empty: notices name your support."`
}

// Clients holds what an operator demands of applications, and the exceptions by name.
type Clients struct {
	RequirePush bool     `key:"require_pushed_requests" default:"false" doc:"Every application has to push its authorization requests (RFC 9126, 5). Otherwise those that are registered so."`
	PKCEExempt  []string `key:"pkce_exempt" doc:"Ids of confidential applications that may come without PKCE. For certification only."`
}

// Webhooks are how programs are told what happened.
type Webhooks struct {
	Concurrency  int           `key:"concurrency" default:"128" min:"1" max:"1000" doc:"Calls to webhook endpoints at once."`
	PerEndpoint  int           `key:"per_endpoint" default:"16" min:"1" max:"100" doc:"Calls to one endpoint at once. One that fails gets one at a time."`
	Timeout      time.Duration `key:"timeout" default:"15s" min:"1s" max:"30s" doc:"How long an endpoint may take to answer."`
	DisableAfter time.Duration `key:"disable_after" default:"120h" min:"24h" max:"720h" doc:"An endpoint that fails is disabled when it has taken nothing for this long."`
}

// Outbound bounds calls to addresses that tenants and applications choose.
type Outbound struct {
	ExemptHosts []string `key:"exempt_hosts" doc:"Hosts that tenants and applications may have called though they are not public, by name: hooks.internal.example.com. All others have to have public addresses, at every call."`
	CAFile      string   `key:"ca_file" doc:"PEM certificates of authorities that are trusted in such calls besides the system's."`
	AllowHTTP   bool     `key:"allow_http" default:"false" doc:"Let such calls go to plain http. For development: only with an issuer on loopback."`
}

// Log is what the server tells its operator.
type Log struct {
	Level  string `key:"level" default:"info" enum:"debug,info,warn,error" reload:"true" doc:"Least severe messages that are logged."`
	Format string `key:"format" default:"json" enum:"json,text" doc:"Form of log lines."`
}

// Production reports whether anything but this machine can be meant: then nothing is forgiven.
func (c *Config) Production() bool {
	u, err := url.Parse(c.Issuer)
	return err != nil || u.Scheme != "http" || !Loopback(u.Hostname())
}

// Loopback reports whether host names this machine.
func Loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// check finds what bounds of single keys cannot say.
func (c *Config) check(report func(key, what, cure string)) {
	c.checkIssuer(report)
	for key, address := range map[string]string{"listen": c.Listen, "management_listen": c.ManagementListen} {
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			report(key, fmt.Sprintf("%q is not an address with a port", address), "write it as 127.0.0.1:8080, or :8080 for every address")
		}
	}
	if c.Listen == c.ManagementListen {
		report("management_listen", "is the address that browsers use", "give it a port of its own")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		report("tls.cert_file", "a certificate and its key go together", "set both tls.cert_file and tls.key_file, or neither")
	}
	if c.Keys.Dir == "" {
		report("keys.dir", "is empty", "name a directory and make keys in it with: watchword key create")
	}
	if c.Session.Idle > c.Session.Absolute {
		report("session.idle", "is longer than session.absolute", "lower session.idle")
	}
	for i, country := range c.SMS.Countries {
		if c.SMS.Countries[i] = strings.ToUpper(country); country != AllCountries && !isCountry(c.SMS.Countries[i]) {
			report("sms.countries", fmt.Sprintf("%q is not a country", country), "write ISO 3166-1 codes of two letters, such as US")
		}
	}
	if _, err := language.Parse(c.DefaultLocale); err != nil {
		report("default_locale", fmt.Sprintf("%q is not a language", c.DefaultLocale), "write a BCP 47 tag, such as en or de")
	}
	for key, value := range map[string]string{
		"branding.support_url": c.Branding.SupportURL, "branding.privacy_url": c.Branding.PrivacyURL,
		"branding.accessibility_url": c.Branding.AccessibilityURL,
	} {
		checkAddress(key, value, report)
	}
	c.checkOutbound(report)
	c.checkVendors(report)
	c.checkMail(report)
	c.checkSIMSwap(report)
	c.checkNames(report)
}

func (c *Config) checkSIMSwap(report func(key, what, cure string)) {
	o := &c.SIMSwap
	if o.URL == "" {
		return
	}
	for key, address := range map[string]string{"sim_swap.url": o.URL, "sim_swap.token_url": o.TokenURL} {
		u, err := url.Parse(address)
		switch {
		case address == "":
			report(key, "is missing", "write where the network gives access tokens, such as https://network.example/oauth2/token")
		case err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !Loopback(u.Hostname())):
			report(key, "is not an address of https", "write it as https://network.example/sim-swap/v2")
		}
	}
	if o.ClientID == "" || o.Secret == "" {
		report("sim_swap.client_id", "a client id and its secret are needed", "set both sim_swap.client_id and sim_swap.secret_file")
	}
	if o.MaxAge%time.Hour != 0 {
		report("sim_swap.max_age", "is not in whole hours", "write it as 72h")
	}
}

func (c *Config) checkMail(report func(key, what, cure string)) {
	m := &c.Mail
	if m.Host == "" {
		for key, value := range map[string]string{"mail.from": m.From, "mail.username": m.Username, "mail.password": string(m.Password)} {
			if value != "" {
				report(key, "is set, but there is no mail server", "set mail.host to the server that takes mails, or take "+key+" away")
			}
		}
		return
	}
	if strings.ContainsAny(m.Host, "/:@ \t") {
		report("mail.host", fmt.Sprintf("%q is not a host name", m.Host), "write the name alone, such as smtp.example.com, and the port as mail.port")
	}
	if m.From == "" {
		report("mail.from", "is missing: mails need a sender", "write it as Example <no-reply@example.com>, of a domain that the mail server may send for")
	}
	if (m.Username == "") != (m.Password == "") {
		report("mail.username", "a user name and its password go together", "set both mail.username and mail.password_file, or neither")
	}
	if m.TLS == "none" && !Loopback(m.Host) {
		report("mail.tls", "mails and the password would cross the network for everybody to read", "use starttls or implicit; none is for a mail server on this machine")
	}
}

func (c *Config) checkIssuer(report func(key, what, cure string)) {
	if c.Issuer == "" {
		return // reported as missing
	}
	u, err := url.Parse(c.Issuer)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		report("issuer", "is not a web address", "write it as https://login.example.com")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(c.Issuer, "#") || u.User != nil:
		report("issuer", "has a query, a fragment or a user name", "leave only scheme, host and port (OpenID Connect Discovery 1.0, 3)")
	case u.Path != "":
		report("issuer", "has a path", "leave only scheme, host and port, without a slash at the end")
	case u.Host != strings.ToLower(u.Host):
		report("issuer", "has capital letters in its host", "write the host in small letters, as browsers do")
	case u.Port() == map[string]string{"https": "443", "http": "80"}[u.Scheme] && u.Port() != "":
		report("issuer", "names the port that is meant without it", "leave the port out, as browsers do")
	case u.Scheme == "https":
	case u.Scheme == "http" && Loopback(u.Hostname()):
	default:
		report("issuer", "is not https", "use https; http is for loopback (http://localhost:8080) only")
	}
}

func (c *Config) checkOutbound(report func(key, what, cure string)) {
	for _, host := range c.Outbound.ExemptHosts {
		if host == "" || strings.ContainsAny(host, "/*@ \t") || strings.Contains(host, ":") && net.ParseIP(host) == nil {
			report("outbound.exempt_hosts", fmt.Sprintf("%q is not the name of one host", host), "write names alone, without scheme, port or wildcard: hooks.internal.example.com")
		}
	}
	if c.Outbound.AllowHTTP && c.Production() {
		report("outbound.allow_http", "is for development: what is sent could be read and altered on the way", "use https, with outbound.ca_file for an authority of your own")
	}
}

func (c *Config) checkNames(report func(key, what, cure string)) {
	names := []string{c.ACR.Recovery, c.ACR.Password, c.ACR.Restricted, c.ACR.Unrestricted}
	for i, key := range []string{"acr.recovery", "acr.password", "acr.restricted", "acr.unrestricted"} {
		switch {
		case names[i] == "" || strings.ContainsAny(names[i], " \t\r\n"):
			report(key, "is empty or has a space in it", "applications send several names with spaces between them: choose one without")
		case slices.Index(names, names[i]) != i:
			report(key, "names a second level by the same name", "give every level a name of its own")
		}
	}
	if name := c.SMS.ServiceName; name == "" || len(name) > 30 || strings.ContainsAny(name, "\r\n#@") {
		report("sms.service_name", "does not fit into a text message", "use 1 to 30 characters without line breaks, # or @")
	}
	if c.Branding.Name == "" {
		report("branding.name", "is empty", "pages have to say whose they are")
	}
}

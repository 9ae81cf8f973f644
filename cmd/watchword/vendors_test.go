package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
)

// settings reads sms.vendors from "vendor.key=value", and sms.routes from "routes=".
func settings(t *testing.T, lines ...string) (*config.Config, []*config.Problem) {
	t.Helper()
	env := []string{"WATCHWORD_ISSUER=https://login.example.com"}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, "=")
		prefix := "WATCHWORD_SMS__VENDORS__"
		if key == "routes" {
			prefix = "WATCHWORD_SMS__"
		}
		env = append(env, prefix+strings.ToUpper(strings.ReplaceAll(key, ".", "__"))+"="+value)
	}
	cfg, _, err := config.Load(config.Sources{Env: env})
	var found []*config.Problem
	for _, problem := range config.Problems(err) {
		if strings.HasPrefix(problem.Key, "sms.") || problem.Key == "" {
			found = append(found, problem)
		}
	}
	return cfg, append(found, config.Problems(checkVendor(cfg, config.Problems(err)))...)
}

// Everything that keeps a vendor from sending is found before it is asked to, each with the key that it is about and with what to do.
func TestVendorSettings(t *testing.T) {
	t.Parallel()
	const (
		account = "twilio.account=AC00000000000000000000000000000001"
		long    = "0123456789abcdef0123456789abcdef"
	)
	for name, tt := range map[string]struct {
		settings []string
		want     []string // keys below sms.
	}{
		"twilio":                {[]string{account, "twilio.secret=s", "twilio.sender=+12025550100"}, nil},
		"twilio without sender": {[]string{account, "twilio.secret=s"}, []string{"vendors.twilio.sender"}},
		"twilio, a sender for each country": {
			[]string{account, "twilio.secret=s", "twilio.countries=US", "twilio.senders=US=+12025550100"}, nil,
		},
		"twilio, one country without sender": {
			[]string{account, "twilio.secret=s", "twilio.countries=US,FR", "twilio.senders=US=+12025550100"}, []string{"vendors.twilio.sender"},
		},
		"twilio with nothing else":      {[]string{"twilio.sender=ACME"}, []string{"vendors.twilio.account", "vendors.twilio.secret"}},
		"twilio, another kind of SID":   {[]string{"twilio.account=SK1", "twilio.secret=s", "twilio.sender=ACME"}, []string{"vendors.twilio.account"}},
		"twilio key without auth token": {[]string{account, "twilio.key_sid=SK1", "twilio.secret=s", "twilio.sender=ACME"}, []string{"vendors.twilio.auth_token"}},
		"verify, another kind of SID": {
			[]string{"twilio_verify.account=AC1", "twilio_verify.secret=s", "twilio_verify.service=MG1"}, []string{"vendors.twilio_verify.service"},
		},
		"infobip with a key alone": {[]string{"infobip.api_key=k"}, []string{"vendors.infobip.base_url", "vendors.infobip.sender"}},
		"infobip with a sender alone": {
			[]string{"infobip.sender=ACME"}, []string{"vendors.infobip.api_key", "vendors.infobip.base_url"},
		},
		"vonage, a sender of 12":     {[]string{"vonage.key=k", "vonage.secret=s", "vonage.sender=TwelveLetter"}, []string{"vendors.vonage.sender"}},
		"a sender of no country":     {[]string{account, "twilio.secret=s", "twilio.sender=ACME", "twilio.senders=FR"}, []string{"vendors.twilio.senders"}},
		"http, a method of two":      {[]string{"http.url=https://sms.example.com", "http.method=PO ST"}, []string{"vendors.http.method"}},
		"smpp, a long password":      {[]string{"smpp.url=smpps://carrier.example", "smpp.system_id=me", "smpp.sender=ACME", "smpp.password=longer-than-eight"}, []string{"vendors.smpp.password"}},
		"rule of an unknown purpose": {[]string{account, "twilio.secret=s", "twilio.sender=ACME", "routes=purpose=holiday vendor=twilio"}, []string{"routes"}},
		"rule of an unknown vendor":  {[]string{account, "twilio.secret=s", "twilio.sender=ACME", "routes=vendor=twillio"}, []string{"routes"}},
		"rule of a broken vendor": {
			[]string{account, "twilio.sender=ACME", "vonage.key=k", "vonage.secret=s", "vonage.sender=ACME", "routes=vendor=twilio|vonage"}, []string{"vendors.twilio.secret"},
		},
		"vendor that is not known": {[]string{"twillio.sender=ACME"}, []string{""}},

		"vonage, a guessable secret":   {[]string{"vonage.key=k", "vonage.secret=s", "vonage.sender=ACME", "vonage.signature_secret=short"}, []string{"vendors.vonage.signature_secret"}},
		"infobip, a guessable secret":  {[]string{"infobip.base_url=https://x.api.infobip.com", "infobip.api_key=k", "infobip.sender=A", "infobip.hmac_secret=short"}, []string{"vendors.infobip.hmac_secret"}},
		"courier, a guessable secret":  {[]string{"courier.token=t", "courier.webhook_secret=short"}, []string{"vendors.courier.webhook_secret"}},
		"whatsapp, a guessable secret": {[]string{"whatsapp.version=v23.0", "whatsapp.phone_number_id=1", "whatsapp.token=t", "whatsapp.template=x", "whatsapp.app_secret=short"}, []string{"vendors.whatsapp.app_secret"}},
		"http, a guessable secret":     {[]string{"http.url=https://sms.example.com", "http.secret=whsec_c2hvcnQ="}, []string{"vendors.http.secret"}},
		"secrets that will do": {[]string{
			"courier.token=t", "courier.webhook_secret=" + long, "vonage.key=k", "vonage.secret=s", "vonage.sender=ACME", "vonage.signature_secret=" + long,
			"http.url=https://sms.example.com", "http.secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, problems := settings(t, tt.settings...)
			var keys []string
			for _, p := range problems {
				keys = append(keys, strings.TrimPrefix(p.Key, "sms."))
				if p.What == "" || p.Cure == "" || strings.ContainsAny(p.What+p.Cure, "\n") {
					t.Errorf("%+v: want one line, and a cure", p)
				}
			}
			slices.Sort(keys)
			if !slices.Equal(keys, tt.want) {
				t.Errorf("problems with %q, want %q: %v", keys, tt.want, errors.Join(errorsOf(problems)...))
			}
		})
	}
}

func errorsOf(problems []*config.Problem) (all []error) {
	for _, p := range problems {
		all = append(all, p)
	}
	return all
}

// What else is wrong hides nothing, and is not told twice.
func TestVendorSettingsBesideOthers(t *testing.T) {
	t.Parallel()
	cfg, _, err := config.Load(config.Sources{Env: []string{"WATCHWORD_ISSUER=nonsense", "WATCHWORD_OTP__DIGITS=99", "WATCHWORD_SMS__VENDORS__TWILIO__ACCOUNT=AC1", "WATCHWORD_SMS__VENDORS__TWILIO__SENDERS=FR"}})
	var keys []string
	for _, p := range append(config.Problems(err), config.Problems(checkVendor(cfg, config.Problems(err)))...) {
		keys = append(keys, p.Key)
	}
	slices.Sort(keys)
	want := []string{"database.dsn", "issuer", "otp.digits", "sms.vendors.twilio.secret", "sms.vendors.twilio.sender", "sms.vendors.twilio.senders"}
	if !slices.Equal(keys, want) {
		t.Errorf("problems with %q, want %q", keys, want)
	}
}

// Codes that a vendor makes are as long as ours.
func TestVendorDigits(t *testing.T) {
	t.Parallel()
	cfg, problems := settings(t, "message_central.token=t", "vonage_verify.brand=ACME", "vonage_verify.key=k", "vonage_verify.secret=s")
	if len(problems) > 0 {
		t.Fatal(problems[0])
	}
	for digits := 6; digits <= 8; digits++ {
		cfg.OTP.Digits = digits
		if _, err := newDelivery(cfg, keyring.Ephemeral(), nil); err != nil {
			t.Errorf("%d digits: %v", digits, err)
		}
	}
	cfg.OTP.Digits = 11
	if _, err := newDelivery(cfg, keyring.Ephemeral(), nil); len(config.Problems(err)) != 2 {
		t.Errorf("11 digits: %v; want a problem of both vendors", err)
	}
}

// What authenticates reports is not needed for sending; without it they are refused, and that is said.
func TestVendorWarnings(t *testing.T) {
	t.Parallel()
	cfg, _ := settings(t, "octopush.login=me@example.com", "octopush.key=k", "octopush.sender=ACME", "twilio.account=AC1", "twilio.secret=s", "twilio.sender=ACME")
	got := warnings(cfg)
	if len(got) != 1 || got[0] != "sms.vendors.octopush: receipts and replies are refused: webhook_token is not set" {
		t.Errorf("warnings %q", got)
	}
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/courier"
	"github.com/watchword-auth/watchword/sms/generic"
	"github.com/watchword-auth/watchword/sms/infobip"
	"github.com/watchword-auth/watchword/sms/messagecentral"
	"github.com/watchword-auth/watchword/sms/octopush"
	"github.com/watchword-auth/watchword/sms/smpp"
	"github.com/watchword-auth/watchword/sms/startmessaging"
	"github.com/watchword-auth/watchword/sms/twilio"
	"github.com/watchword-auth/watchword/sms/vonage"
	"github.com/watchword-auth/watchword/sms/whatsapp"
)

// vendor is one that can be configured: adding one is a folder under sms, its keys in the configuration and an entry here.
type vendor struct {
	key    string // under sms.vendors; also its name
	sender string
	use    config.VendorUse
	token  string // of the path that it calls, if it does not sign
	needs  string // how to get a sender, for a vendor that sends nothing without one; others are checked by their drivers
	closed string // what its reports are refused for the lack of: "webhook_token"; "": nothing
	build  func() (sms.Vendor, error)
}

// vendors lists every vendor with its settings.
func vendors(c *config.Config) []vendor {
	v := &c.SMS.Vendors
	return []vendor{
		{key: "simulator", sender: c.SMS.ServiceName, build: func() (sms.Vendor, error) {
			address, err := url.JoinPath(v.Simulator.URL, "http", "send")
			if err != nil {
				return nil, err
			}
			return generic.New("simulator", generic.Config{URL: address, Secret: carriersim.HTTPSecret, Channels: []string{"sms", "whatsapp", "voice"}, Now: time.Now})
		}},
		{key: "twilio", needs: "give a number, an alphanumeric sender or a messaging service (MG…) that the account has", sender: v.Twilio.Sender, use: v.Twilio.VendorUse, build: func() (sms.Vendor, error) {
			o := v.Twilio
			return twilio.NewMessaging("twilio", twilio.Config{BaseURL: o.BaseURL, Account: o.Account, KeySID: o.KeySID, Secret: o.Secret.Reveal(), AuthToken: o.AuthToken.Reveal(), Sender: o.Sender})
		}},
		{key: "twilio_verify", use: v.TwilioVerify.VendorUse, build: func() (sms.Vendor, error) {
			o := v.TwilioVerify
			return twilio.NewVerify("twilio_verify", twilio.Config{BaseURL: o.BaseURL, Account: o.Account, KeySID: o.KeySID, Secret: o.Secret.Reveal(), Service: o.Service, CustomCode: o.CustomCode})
		}},
		{key: "vonage", closed: lacking("signature_secret", v.Vonage.SignatureSecret), sender: v.Vonage.Sender, use: v.Vonage.VendorUse, build: func() (sms.Vendor, error) {
			o := v.Vonage
			return vonage.NewSMS("vonage", vonage.Config{BaseURL: o.BaseURL, Key: o.Key, Secret: o.Secret.Reveal(), Sender: o.Sender, EntityID: o.EntityID, ContentID: o.ContentID,
				SignatureSecret: o.SignatureSecret.Reveal(), SignatureMethod: o.SignatureMethod})
		}},
		{key: "vonage_verify", closed: lacking("signature_secret", v.VonageVerify.SignatureSecret), use: v.VonageVerify.VendorUse, build: func() (sms.Vendor, error) {
			o := v.VonageVerify
			var channels []sms.Channel
			for _, name := range o.Channels {
				channels = append(channels, sms.Channel(name))
			}
			return vonage.NewVerify("vonage_verify", vonage.Config{BaseURL: o.BaseURL, Key: o.Key, Secret: o.Secret.Reveal(), Application: o.Application, PrivateKey: o.PrivateKey.Reveal(),
				SignatureSecret: o.SignatureSecret.Reveal(), Brand: o.Brand, CustomCode: o.CustomCode, Digits: c.OTP.Digits, Channels: channels, Sender: o.Sender, WhatsAppSender: o.WhatsAppSender, Now: time.Now})
		}},
		{key: "infobip", needs: "give a sender id that the account has", closed: lacking("webhook_token or hmac_secret", v.Infobip.WebhookToken, v.Infobip.HMACSecret), sender: v.Infobip.Sender, use: v.Infobip.VendorUse, token: v.Infobip.WebhookToken.Reveal(), build: func() (sms.Vendor, error) {
			o := v.Infobip
			return infobip.NewSMS("infobip", infobip.Config{BaseURL: o.BaseURL, APIKey: o.APIKey.Reveal(), Sender: o.Sender, WebhookToken: o.WebhookToken.Reveal(), HMACSecret: o.HMACSecret.Reveal(),
				HMACHeader: o.HMACHeader, HMACAlgorithm: o.HMACAlgorithm, HMACEncoding: o.HMACEncoding, IndiaEntity: o.IndiaEntity, IndiaTemplate: o.IndiaTemplate})
		}},
		{key: "infobip_2fa", use: v.Infobip2FA.VendorUse, build: func() (sms.Vendor, error) {
			o := v.Infobip2FA
			return infobip.NewTwoFactor("infobip_2fa", infobip.Config{BaseURL: o.BaseURL, APIKey: o.APIKey.Reveal(), Application: o.Application, Message: o.Message, Sender: o.Sender})
		}},
		{key: "octopush", closed: lacking("webhook_token", v.Octopush.WebhookToken), sender: v.Octopush.Sender, use: v.Octopush.VendorUse, token: v.Octopush.WebhookToken.Reveal(), build: func() (sms.Vendor, error) {
			o := v.Octopush
			return octopush.New("octopush", octopush.Config{BaseURL: o.BaseURL, Login: o.Login, Key: o.Key.Reveal(), Sender: o.Sender, Quality: o.Quality, Replies: o.Replies, Voice: o.Voice,
				WebhookToken: o.WebhookToken.Reveal()})
		}},
		{key: "startmessaging", use: v.StartMessaging.VendorUse, build: func() (sms.Vendor, error) {
			o := v.StartMessaging
			return startmessaging.New("startmessaging", startmessaging.Config{Mode: o.Mode, BaseURL: o.BaseURL, Key: o.Key.Reveal(), Idempotent: o.Idempotent, Template: o.Template, AppName: o.AppName})
		}},
		{key: "message_central", use: v.MessageCentral.VendorUse, build: func() (sms.Vendor, error) {
			o := v.MessageCentral
			return messagecentral.New("message_central", messagecentral.Config{BaseURL: o.BaseURL, Token: o.Token.Reveal(), Customer: o.Customer, Password: o.Password.Reveal(), Email: o.Email,
				Country: o.Country, Digits: c.OTP.Digits, Now: time.Now})
		}},
		{key: "courier", closed: lacking("webhook_secret", v.Courier.Secret), sender: v.Courier.Sender, use: v.Courier.VendorUse, build: func() (sms.Vendor, error) {
			o := v.Courier
			return courier.New("courier", courier.Config{BaseURL: o.BaseURL, Token: o.Token.Reveal(), Secret: o.Secret.Reveal(), Sender: o.Sender, Template: o.Template})
		}},
		{key: "whatsapp", closed: lacking("app_secret", v.WhatsApp.AppSecret), use: v.WhatsApp.VendorUse, build: func() (sms.Vendor, error) {
			o := v.WhatsApp
			return whatsapp.New("whatsapp", whatsapp.Config{BaseURL: o.BaseURL, Version: o.Version, PhoneNumberID: o.PhoneNumberID, Token: o.Token.Reveal(), Template: o.Template, Languages: o.Languages,
				AppSecret: o.AppSecret.Reveal(), VerifyToken: o.VerifyToken.Reveal()})
		}},
		{key: "smpp", sender: v.SMPP.Sender, use: v.SMPP.VendorUse, build: func() (sms.Vendor, error) {
			o := v.SMPP
			return smpp.New("smpp", smpp.Config{URL: o.URL, AllowPlain: o.AllowPlain, SystemID: o.SystemID, Password: o.Password.Reveal(), SystemType: o.SystemType, Sender: o.Sender,
				Source: o.Source, Destination: o.Destination, Alphabet: smpp.Alphabet(o.Alphabet), ReceiptID: smpp.ReceiptID(o.ReceiptID), Region: o.Region, Errors: o.Errors, Window: o.Window, Rate: o.Rate})
		}},
		{key: "http", closed: lacking("secret", v.HTTP.Secret), sender: v.HTTP.Sender, use: v.HTTP.VendorUse, build: func() (sms.Vendor, error) {
			o := v.HTTP
			headers := slices.Clone(o.Headers)
			if o.Authorization != "" {
				headers = append(headers, "Authorization: "+o.Authorization.Reveal())
			}
			return generic.New("http", generic.Config{URL: o.URL, Secret: o.Secret.Reveal(), Sender: o.Sender, Method: o.Method, Headers: headers, Body: o.Body, Type: o.Type, Channels: o.Channels,
				CodeField: o.CodeField, ReferenceField: o.ReferenceField, SuccessCodes: o.SuccessCodes, Errors: o.Errors, Idempotent: o.Idempotent, HideCode: o.HideCode, Now: time.Now})
		}},
	}
}

// delivery is everything that carries texts.
type delivery struct {
	routing *sms.Routing
	texts   *sms.Texts
	outbox  *sms.Outbox
	tokens  map[string]string // of vendors that do not sign
	closed  map[string]string // what vendors lack whose reports are refused
	sources map[string][]netip.Prefix
}

// newDelivery makes the vendors that have settings and routes between them. Its error joins a [config.Problem] for everything that is wrong; what is right can be used
// all the same, by whoever sends nothing.
func newDelivery(cfg *config.Config, keys sms.Keys, changed func(vendor string, up bool)) (*delivery, error) {
	d := &delivery{tokens: map[string]string{}, closed: map[string]string{}, sources: map[string][]netip.Prefix{}, outbox: &sms.Outbox{Keys: keys}}
	var problems []error
	report := func(key, what, cure string) {
		problems = append(problems, &config.Problem{Key: key, What: outward(what), Cure: cure})
	}
	issuer, err := url.Parse(cfg.Issuer)
	if err != nil {
		issuer = new(url.URL) // told with the configuration
	}
	if d.texts, err = sms.NewTexts(cfg.SMS.ServiceName, cmp.Or(issuer.Hostname(), "localhost")); err != nil {
		report("sms.service_name", oneLine(err), "choose a short name in characters of the GSM alphabet")
	}
	routing := sms.RoutingConfig{Changed: changed}
	used, sound := cfg.SMS.Vendors.Used(), map[string]bool{}
	for _, v := range vendors(cfg) {
		if !slices.Contains(used, v.key) {
			continue
		}
		built, err := v.build()
		wrong := v.wrong(cfg, err)
		problems = append(problems, wrong...)
		if err != nil {
			continue
		}
		sound[v.key] = true
		routing.Carriers = append(routing.Carriers, v.carrier(built))
		d.sources[v.key] = v.use.WebhookSources
		if v.token != "" {
			d.tokens[v.key] = v.token
		}
		if v.closed != "" {
			d.closed[v.key] = v.closed
		}
	}
	for _, name := range cfg.SMS.Channels {
		switch channel := sms.Channel(name); channel {
		case sms.SMS, sms.WhatsApp, sms.Voice:
			routing.Channels = append(routing.Channels, channel)
		default:
			report("sms.channels", fmt.Sprintf("%q is not a channel", name), "write sms, whatsapp or voice")
		}
	}
	for _, text := range cfg.SMS.Routes {
		rule, err := sms.ParseRule(text)
		if err != nil {
			report("sms.routes", fmt.Sprintf("rule %q: %s", text, oneLine(err)), "write rules as country=FR|BE channel=sms vendor=octopush|twilio")
			continue
		}
		broken := false
		for _, name := range rule.Vendors {
			if !slices.Contains(used, name) {
				report("sms.routes", fmt.Sprintf("rule %q names vendor %q, which has no settings", text, name), vendorCure(cfg, name))
			}
			broken = broken || !sound[name]
		}
		if !broken {
			routing.Rules = append(routing.Rules, rule)
		}
	}
	if d.routing, err = sms.NewRouting(routing); err != nil {
		for wrong := range strings.SplitSeq(err.Error(), "\n") {
			report("sms.routes", wrong, "change the rule")
		}
		routing.Rules = nil
		if d.routing, err = sms.NewRouting(routing); err != nil {
			return nil, errors.Join(append(problems, err)...)
		}
	}
	if !slices.Contains(cfg.SMS.Countries, config.AllCountries) {
		d.outbox.Countries = map[string]bool{}
		for _, country := range cfg.SMS.Countries {
			d.outbox.Countries[country] = true
		}
	}
	return d, errors.Join(problems...)
}

// lacking is what when none of the secrets that authenticate a vendor's reports has a value.
func lacking(what string, secrets ...config.Secret) string {
	for _, secret := range secrets {
		if secret != "" {
			return ""
		}
	}
	return what
}

// carrier is the vendor as the operator uses it.
func (v *vendor) carrier(built sms.Vendor) sms.Carrier {
	carrier := sms.Carrier{Vendor: built, Countries: v.use.Countries, Costs: map[string]float64{}, Senders: map[string]string{"": v.sender}}
	senders, _ := config.PerCountry(v.use.Senders) //nolint:errcheck // checked with the configuration
	maps.Copy(carrier.Senders, senders)
	costs, _ := config.PerCountry(v.use.Costs) //nolint:errcheck // as above
	for country, cost := range costs {
		carrier.Costs[country], _ = strconv.ParseFloat(cost, 64) //nolint:errcheck // as above
	}
	return carrier
}

// wrong lists what keeps a vendor from sending: what its driver says, each with the key that it is about, and what the driver cannot know.
func (v *vendor) wrong(cfg *config.Config, built error) (problems []error) {
	path := "sms.vendors." + v.key
	var walk func(error)
	walk = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				walk(e)
			}
			return
		}
		e, ok := errors.AsType[*sms.SettingError](err)
		if !ok {
			problems = append(problems, &config.Problem{Key: path, What: oneLine(err), Cure: "see its keys with: watchword config schema"})
			return
		}
		key, cure := path+"."+e.Key, e.Cure
		if v.key == "simulator" {
			key = path + ".url"
		}
		for _, o := range config.Options() {
			if o.Path == key && o.Secret && e.What == "is not set" {
				cure += ": name a file that holds it in " + key + "_file"
			}
		}
		problems = append(problems, &config.Problem{Key: key, What: outward(e.What), Cure: cure})
	}
	if built != nil {
		walk(built)
	}
	if lacks := v.senderless(cfg); v.needs != "" && len(lacks) > 0 {
		what := "is not set"
		if len(v.use.Senders) > 0 {
			what += ", and senders has none for " + strings.Join(lacks[:min(len(lacks), 5)], ", ")
			if len(lacks) > 5 {
				what += ", …"
			}
		}
		problems = append(problems, &config.Problem{Key: path + ".sender", What: what, Cure: v.needs})
	}
	if v.key == "infobip" && cfg.SMS.Vendors.Infobip.BaseURL == "" || v.key == "infobip_2fa" && cfg.SMS.Vendors.Infobip2FA.BaseURL == "" {
		problems = append(problems, &config.Problem{Key: path + ".base_url", What: "is not set", Cure: "copy the account's own address, https://….api.infobip.com, from the portal"})
	}
	return problems
}

// senderless are the countries that a vendor is used for without a sender to use there.
func (v *vendor) senderless(cfg *config.Config) (countries []string) {
	if v.sender != "" {
		return nil
	}
	senders, err := config.PerCountry(v.use.Senders)
	if err != nil {
		return nil // told with the configuration
	}
	used := v.use.Countries
	if len(used) == 0 {
		used = cfg.SMS.Countries
	}
	for _, country := range used {
		if senders[country] == "" {
			countries = append(countries, country)
		}
	}
	return countries
}

// vendorCure says what to do about a vendor that a rule or an argument names and that has no settings.
func vendorCure(cfg *config.Config, name string) string {
	known := false
	for _, v := range vendors(cfg) {
		known = known || v.key == name
	}
	used := cfg.SMS.Vendors.Used()
	switch {
	case known:
		return "give it settings under sms.vendors." + name + ", or take it out"
	case len(used) == 0:
		return "no vendor has settings: see sms.vendors"
	}
	return "write one that has settings: " + strings.Join(used, ", ")
}

// callback is the address that a vendor is told to report to.
func (d *delivery) callback(cfg *config.Config) func(string) string {
	return func(vendor string) string {
		address := cfg.Issuer + "/v1/delivery-reports/" + vendor
		if token := d.tokens[vendor]; token != "" {
			address += "/" + token
		}
		return address
	}
}

// told logs breakers, and passes on what they did to whoever tells the operator's programs. Breakers wait for nobody: news that find no room are only logged.
func told(log *slog.Logger, news chan<- vendorNews) func(string, bool) {
	return func(vendor string, up bool) {
		select {
		case news <- vendorNews{vendor, up}:
		default:
		}
		if up {
			log.InfoContext(context.Background(), "vendor works again", "event", "vendor.recovered", "vendor", vendor)
			return
		}
		log.ErrorContext(context.Background(), "vendor does not work: its texts go another way if there is one", "event", "vendor.degraded", "vendor", vendor)
	}
}

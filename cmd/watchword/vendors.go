package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
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
		{key: "twilio", sender: v.Twilio.Sender, use: v.Twilio.VendorUse, build: func() (sms.Vendor, error) {
			o := v.Twilio
			return twilio.NewMessaging("twilio", twilio.Config{BaseURL: o.BaseURL, Account: o.Account, KeySID: o.KeySID, Secret: o.Secret.Reveal(), AuthToken: o.AuthToken.Reveal(), Sender: o.Sender})
		}},
		{key: "twilio_verify", use: v.TwilioVerify.VendorUse, build: func() (sms.Vendor, error) {
			o := v.TwilioVerify
			return twilio.NewVerify("twilio_verify", twilio.Config{BaseURL: o.BaseURL, Account: o.Account, KeySID: o.KeySID, Secret: o.Secret.Reveal(), Service: o.Service, CustomCode: o.CustomCode})
		}},
		{key: "vonage", sender: v.Vonage.Sender, use: v.Vonage.VendorUse, build: func() (sms.Vendor, error) {
			o := v.Vonage
			return vonage.NewSMS("vonage", vonage.Config{BaseURL: o.BaseURL, Key: o.Key, Secret: o.Secret.Reveal(), Sender: o.Sender, EntityID: o.EntityID, ContentID: o.ContentID,
				SignatureSecret: o.SignatureSecret.Reveal(), SignatureMethod: o.SignatureMethod})
		}},
		{key: "vonage_verify", use: v.VonageVerify.VendorUse, build: func() (sms.Vendor, error) {
			o := v.VonageVerify
			var channels []sms.Channel
			for _, name := range o.Channels {
				channels = append(channels, sms.Channel(name))
			}
			return vonage.NewVerify("vonage_verify", vonage.Config{BaseURL: o.BaseURL, Key: o.Key, Secret: o.Secret.Reveal(), Application: o.Application, PrivateKey: o.PrivateKey.Reveal(),
				SignatureSecret: o.SignatureSecret.Reveal(), Brand: o.Brand, CustomCode: o.CustomCode, Channels: channels, Sender: o.Sender, WhatsAppSender: o.WhatsAppSender, Now: time.Now})
		}},
		{key: "infobip", sender: v.Infobip.Sender, use: v.Infobip.VendorUse, token: v.Infobip.WebhookToken.Reveal(), build: func() (sms.Vendor, error) {
			o := v.Infobip
			return infobip.NewSMS("infobip", infobip.Config{BaseURL: o.BaseURL, APIKey: o.APIKey.Reveal(), Sender: o.Sender, WebhookToken: o.WebhookToken.Reveal(), HMACSecret: o.HMACSecret.Reveal(),
				HMACHeader: o.HMACHeader, HMACAlgorithm: o.HMACAlgorithm, HMACEncoding: o.HMACEncoding, IndiaEntity: o.IndiaEntity, IndiaTemplate: o.IndiaTemplate})
		}},
		{key: "infobip_2fa", use: v.Infobip2FA.VendorUse, build: func() (sms.Vendor, error) {
			o := v.Infobip2FA
			return infobip.NewTwoFactor("infobip_2fa", infobip.Config{BaseURL: o.BaseURL, APIKey: o.APIKey.Reveal(), Application: o.Application, Message: o.Message, Sender: o.Sender})
		}},
		{key: "octopush", sender: v.Octopush.Sender, use: v.Octopush.VendorUse, token: v.Octopush.WebhookToken.Reveal(), build: func() (sms.Vendor, error) {
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
				Country: o.Country, Now: time.Now})
		}},
		{key: "courier", sender: v.Courier.Sender, use: v.Courier.VendorUse, build: func() (sms.Vendor, error) {
			o := v.Courier
			return courier.New("courier", courier.Config{BaseURL: o.BaseURL, Token: o.Token.Reveal(), Secret: o.Secret.Reveal(), Sender: o.Sender, Template: o.Template})
		}},
		{key: "whatsapp", use: v.WhatsApp.VendorUse, build: func() (sms.Vendor, error) {
			o := v.WhatsApp
			return whatsapp.New("whatsapp", whatsapp.Config{BaseURL: o.BaseURL, Version: o.Version, PhoneNumberID: o.PhoneNumberID, Token: o.Token.Reveal(), Template: o.Template, Languages: o.Languages,
				AppSecret: o.AppSecret.Reveal(), VerifyToken: o.VerifyToken.Reveal()})
		}},
		{key: "smpp", sender: v.SMPP.Sender, use: v.SMPP.VendorUse, build: func() (sms.Vendor, error) {
			o := v.SMPP
			return smpp.New("smpp", smpp.Config{URL: o.URL, AllowPlain: o.AllowPlain, SystemID: o.SystemID, Password: o.Password.Reveal(), SystemType: o.SystemType, Sender: o.Sender,
				Source: o.Source, Destination: o.Destination, Alphabet: smpp.Alphabet(o.Alphabet), ReceiptID: smpp.ReceiptID(o.ReceiptID), Region: o.Region, Errors: o.Errors, Window: o.Window, Rate: o.Rate})
		}},
		{key: "http", sender: v.HTTP.Sender, use: v.HTTP.VendorUse, build: func() (sms.Vendor, error) {
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
	sources map[string][]netip.Prefix
}

// newDelivery makes the vendors that have settings and routes between them. Its error joins a [config.Problem] for everything that is wrong.
func newDelivery(cfg *config.Config, keys sms.Keys, changed func(vendor string, up bool)) (*delivery, error) {
	d := &delivery{tokens: map[string]string{}, sources: map[string][]netip.Prefix{}, outbox: &sms.Outbox{Keys: keys}}
	var problems []error
	report := func(key string, err error, cure string) {
		problems = append(problems, &config.Problem{Key: key, What: oneLine(err), Cure: cure})
	}
	issuer, err := url.Parse(cfg.Issuer)
	if err != nil {
		return nil, err
	}
	if d.texts, err = sms.NewTexts(cfg.SMS.ServiceName, issuer.Hostname()); err != nil {
		report("sms.service_name", err, "choose a short name in characters of the GSM alphabet")
	}
	routing := sms.RoutingConfig{Changed: changed}
	used := cfg.SMS.Vendors.Used()
	for _, v := range vendors(cfg) {
		if !slices.Contains(used, v.key) {
			continue
		}
		built, err := v.build()
		if err != nil {
			report("sms.vendors."+v.key, err, "see its keys with: watchword config schema")
			continue
		}
		carrier := sms.Carrier{Vendor: built, Countries: v.use.Countries, Costs: map[string]float64{}}
		senders, _ := config.PerCountry(v.use.Senders) //nolint:errcheck // checked with the configuration
		carrier.Senders = map[string]string{"": v.sender}
		maps.Copy(carrier.Senders, senders)
		costs, _ := config.PerCountry(v.use.Costs) //nolint:errcheck // as above
		for country, cost := range costs {
			carrier.Costs[country], _ = strconv.ParseFloat(cost, 64) //nolint:errcheck // as above
		}
		routing.Carriers = append(routing.Carriers, carrier)
		d.sources[v.key] = v.use.WebhookSources
		if v.token != "" {
			d.tokens[v.key] = v.token
		}
	}
	for _, name := range cfg.SMS.Channels {
		switch channel := sms.Channel(name); channel {
		case sms.SMS, sms.WhatsApp, sms.Voice:
			routing.Channels = append(routing.Channels, channel)
		default:
			report("sms.channels", fmt.Errorf("%q is not a channel", name), "write sms, whatsapp or voice")
		}
	}
	for _, text := range cfg.SMS.Routes {
		rule, err := sms.ParseRule(text)
		if err != nil {
			report("sms.routes", fmt.Errorf("rule %q: %w", text, err), "write rules as country=FR|BE channel=sms vendor=octopush|twilio")
			continue
		}
		routing.Rules = append(routing.Rules, rule)
	}
	if len(problems) > 0 { // vendors that could not be made would be missed by their rules
		return nil, errors.Join(problems...)
	}
	if d.routing, err = sms.NewRouting(routing); err != nil {
		report("sms.routes", err, "give the vendor settings, or take it out of the rule")
		return nil, errors.Join(problems...)
	}
	if !slices.Contains(cfg.SMS.Countries, config.AllCountries) {
		d.outbox.Countries = map[string]bool{}
		for _, country := range cfg.SMS.Countries {
			d.outbox.Countries[country] = true
		}
	}
	return d, nil
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

// told logs breakers.
func told(log *slog.Logger) func(string, bool) {
	return func(vendor string, up bool) {
		if up {
			log.InfoContext(context.Background(), "vendor works again", "event", "vendor.recovered", "vendor", vendor)
			return
		}
		log.ErrorContext(context.Background(), "vendor does not work: its texts go another way if there is one", "event", "vendor.degraded", "vendor", vendor)
	}
}

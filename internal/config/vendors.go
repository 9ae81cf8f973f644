package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/language"
)

// Vendors that carry texts. One that has any of its own settings is in use; where no route says otherwise they are tried in this order.
type Vendors struct {
	Simulator      Simulator      `key:"simulator"`
	Twilio         Twilio         `key:"twilio"`
	TwilioVerify   TwilioVerify   `key:"twilio_verify"`
	Vonage         Vonage         `key:"vonage"`
	VonageVerify   VonageVerify   `key:"vonage_verify"`
	Infobip        Infobip        `key:"infobip"`
	Infobip2FA     Infobip2FA     `key:"infobip_2fa"`
	Octopush       Octopush       `key:"octopush"`
	StartMessaging StartMessaging `key:"startmessaging"`
	MessageCentral MessageCentral `key:"message_central"`
	Courier        Courier        `key:"courier"`
	WhatsApp       WhatsApp       `key:"whatsapp"`
	SMPP           SMPP           `key:"smpp"`
	HTTP           HTTP           `key:"http"`
}

// VendorUse is what an operator says of any vendor.
type VendorUse struct {
	Senders        []string       `key:"senders" doc:"Sender ids by country, as US=+12025550100. Other countries have sender."`
	Countries      []string       `key:"countries" doc:"Countries that this vendor is used for, as ISO 3166-1 codes. Empty: all that it serves."`
	Costs          []string       `key:"costs" doc:"What one text costs, for routes with order=cost: 0.008 for every country, FR=0.05 for one. Any unit, the same for all vendors. Vendors without a cost come last."`
	WebhookSources []netip.Prefix `key:"webhook_sources" doc:"Networks that the vendor's calls come from, as CIDRs. Empty: any."`
}

// Simulator is the carrier on your desk.
type Simulator struct {
	URL string `key:"url" doc:"Address of a carrier simulator (watchword sim). For development: it shows every text to whoever asks."`
}

// Twilio Programmable Messaging.
type Twilio struct {
	Account   string `key:"account" doc:"SID of the account, AC…"`
	KeySID    string `key:"key_sid" doc:"SID of an API key, SK…, whose secret secret is. Empty: secret is the account's auth token."`
	Secret    Secret `key:"secret" secret:"true" doc:"Auth token, or secret of the API key."`
	AuthToken Secret `key:"auth_token" secret:"true" doc:"Auth token of the account, which signs receipts. Needed with key_sid; otherwise secret is it."`
	Sender    string `key:"sender" doc:"Number, alphanumeric sender or messaging service (MG…)."`
	BaseURL   string `key:"base_url" doc:"Address of the API. Empty: the vendor's own."`
	VendorUse
}

// TwilioVerify is Twilio's verifier.
type TwilioVerify struct {
	Account    string `key:"account" doc:"SID of the account, AC…"`
	KeySID     string `key:"key_sid" doc:"SID of an API key, SK…, whose secret secret is. Empty: secret is the account's auth token."`
	Secret     Secret `key:"secret" secret:"true" doc:"Auth token, or secret of the API key."`
	Service    string `key:"service" doc:"SID of the Verify service, VA…. Its code length has to be otp.digits."`
	CustomCode bool   `key:"custom_code" default:"false" doc:"The account takes codes of our own."`
	BaseURL    string `key:"base_url" doc:"Address of the API. Empty: the vendor's own."`
	VendorUse
}

// Vonage SMS.
type Vonage struct {
	Key             string `key:"key" doc:"API key."`
	Secret          Secret `key:"secret" secret:"true" doc:"API secret."`
	Sender          string `key:"sender" doc:"Number or alphanumeric sender."`
	SignatureSecret Secret `key:"signature_secret" secret:"true" doc:"Signature secret of the account, of 16 characters or more. Empty: receipts are refused."`
	SignatureMethod string `key:"signature_method" default:"sha256" enum:"md5hash,md5,sha1,sha256,sha512" doc:"Signature method of the account."`
	EntityID        string `key:"entity_id" doc:"Registered principal entity, for India."`
	ContentID       string `key:"content_id" doc:"Registered content template, for India."`
	BaseURL         string `key:"base_url" doc:"Address of the API. Empty: the vendor's own."`
	VendorUse
}

// VonageVerify is Vonage's verifier.
type VonageVerify struct {
	Key             string   `key:"key" doc:"API key. Not needed with application."`
	Secret          Secret   `key:"secret" secret:"true" doc:"API secret. Not needed with application."`
	Application     string   `key:"application" doc:"Id of the application that requests are made for."`
	PrivateKey      Secret   `key:"private_key" secret:"true" doc:"Private key of the application, PEM."`
	SignatureSecret Secret   `key:"signature_secret" secret:"true" doc:"Signature secret of the account, of 32 characters or more. Empty: callbacks are refused."`
	Brand           string   `key:"brand" doc:"Name of the service in the vendor's texts."`
	CustomCode      bool     `key:"custom_code" default:"false" doc:"The vendor sends codes of our own."`
	Channels        []string `key:"channels" default:"sms" doc:"Channels that one request goes through: sms, whatsapp, voice."`
	Sender          string   `key:"sender" doc:"Number that texts come from. Empty: the brand."`
	WhatsAppSender  string   `key:"whatsapp_sender" doc:"Number that WhatsApp messages come from."`
	BaseURL         string   `key:"base_url" doc:"Address of the API. Empty: the vendor's own."`
	VendorUse
}

// Infobip SMS.
type Infobip struct {
	BaseURL       string `key:"base_url" doc:"Address of the account's own API, https://….api.infobip.com."`
	APIKey        Secret `key:"api_key" secret:"true" doc:"API key with scope sms:message:send."`
	Sender        string `key:"sender" doc:"Sender id."`
	WebhookToken  Secret `key:"webhook_token" secret:"true" doc:"Unguessable part of the path that receipts come to. Empty, without hmac_secret: receipts are refused."`
	HMACSecret    Secret `key:"hmac_secret" secret:"true" doc:"Secret of the notification profile's HMAC, of 16 characters or more."`
	HMACHeader    string `key:"hmac_header" default:"X-Signature" doc:"Header that carries the HMAC."`
	HMACAlgorithm string `key:"hmac_algorithm" default:"sha256" enum:"sha1,sha224,sha256,sha384,sha512" doc:"Algorithm of the HMAC."`
	HMACEncoding  string `key:"hmac_encoding" default:"hex" enum:"hex,base64" doc:"Encoding of the HMAC."`
	IndiaEntity   string `key:"india_entity" doc:"Registered principal entity, for India."`
	IndiaTemplate string `key:"india_template" doc:"Registered content template, for India."`
	VendorUse
}

// Infobip2FA is Infobip's verifier.
type Infobip2FA struct {
	BaseURL     string `key:"base_url" doc:"Address of the account's own API, https://….api.infobip.com."`
	APIKey      Secret `key:"api_key" secret:"true" doc:"API key with scope 2fa:pin:send."`
	Application string `key:"application" doc:"Id of the 2FA application."`
	Message     string `key:"message" doc:"Id of its message template, whose PIN has otp.digits digits."`
	Sender      string `key:"sender" doc:"Sender id. Empty: the template's."`
	VendorUse
}

// Octopush SMS.
type Octopush struct {
	Login        string `key:"login" doc:"E-mail address of the account."`
	Key          Secret `key:"key" secret:"true" doc:"API key of v1."`
	Sender       string `key:"sender" doc:"Sender of 3 to 11 letters and digits."`
	Quality      string `key:"quality" default:"sms_premium" enum:"sms_premium,sms_low_cost" doc:"Quality of the route."`
	Replies      bool   `key:"replies" default:"false" doc:"Texts come from a sender that people can answer."`
	Voice        bool   `key:"voice" default:"false" doc:"The vendor is used for calls too."`
	WebhookToken Secret `key:"webhook_token" secret:"true" doc:"Unguessable part of the paths that are entered in the dashboard. Empty: receipts and replies are refused."`
	BaseURL      string `key:"base_url" doc:"Address of the API. Empty: the vendor's own."`
	VendorUse
}

// StartMessaging serves India.
type StartMessaging struct {
	Mode       string `key:"mode" default:"message" enum:"managed,message" doc:"managed: the vendor makes and checks codes. message: it carries ours."`
	Key        Secret `key:"key" secret:"true" doc:"API key, sm_live_…"`
	Template   string `key:"template" doc:"Id of the template, with mode message. Empty: the vendor's."`
	AppName    string `key:"app_name" doc:"Name of the service in the template."`
	Idempotent bool   `key:"idempotent" default:"false" doc:"The account's idempotency keys are known to work."`
	BaseURL    string `key:"base_url" doc:"Address of the API. Empty: the vendor's own."`
	VendorUse
}

// MessageCentral is a verifier.
type MessageCentral struct {
	Token    Secret `key:"token" secret:"true" doc:"Token from the dashboard. Empty: tokens are fetched with customer and password."`
	Customer string `key:"customer" doc:"Id of the customer, C-…"`
	Password Secret `key:"password" secret:"true" doc:"Password of the account."`
	Email    string `key:"email" doc:"E-mail address of the account."`
	Country  string `key:"country" doc:"Calling code of the account, without plus."`
	BaseURL  string `key:"base_url" doc:"Address of the API. Empty: the vendor's own."`
	VendorUse
}

// Courier routes to providers of its own.
type Courier struct {
	Token    Secret `key:"token" secret:"true" doc:"Token of the workspace's environment."`
	Secret   Secret `key:"webhook_secret" secret:"true" doc:"Secret of the outbound webhook, of 16 characters or more. Empty: receipts are refused."`
	Sender   string `key:"sender" doc:"Number or messaging service in place of the workspace's own."`
	Template string `key:"template" doc:"Id of a stored template with variables text and code. Empty: our text."`
	BaseURL  string `key:"base_url" doc:"Address of the API. Empty: the vendor's own."`
	VendorUse
}

// WhatsApp Business Cloud.
type WhatsApp struct {
	Version       string   `key:"version" doc:"Version of the Graph API, v23.0."`
	PhoneNumberID string   `key:"phone_number_id" doc:"Id of the sending number."`
	Token         Secret   `key:"token" secret:"true" doc:"Token of a system user."`
	Template      string   `key:"template" doc:"Name of the authentication template."`
	Languages     []string `key:"languages" default:"en_US" doc:"Languages that the template is approved in; the first for everybody else."`
	AppSecret     Secret   `key:"app_secret" secret:"true" doc:"App secret, which signs webhooks. Empty: they are refused."`
	VerifyToken   Secret   `key:"verify_token" secret:"true" doc:"What the dashboard shows when it tries the webhook's address."`
	BaseURL       string   `key:"base_url" doc:"Address of the API. Empty: the vendor's own."`
	VendorUse
}

// SMPP is a link to a carrier.
type SMPP struct {
	URL         string   `key:"url" doc:"Address of the carrier: smpps://host:port with TLS, smpp://host:port without."`
	AllowPlain  bool     `key:"allow_plain" default:"false" doc:"Without TLS to other machines: password, numbers and codes can be read on the way. For private lines and tunnels."`
	SystemID    string   `key:"system_id" doc:"Name that the link is bound with, at most 15 characters."`
	Password    Secret   `key:"password" secret:"true" doc:"Password of the bind, at most 8 characters."`
	SystemType  string   `key:"system_type" doc:"System type, if the carrier asks for one."`
	Sender      string   `key:"sender" doc:"Number, short code or alphanumeric sender."`
	Source      string   `key:"source" doc:"Type and plan of the sender, as 5/0. Empty: by its form."`
	Destination string   `key:"destination" doc:"Type and plan of numbers. Empty: 1/1."`
	Alphabet    string   `key:"alphabet" default:"gsm" enum:"gsm,latin1" doc:"Alphabet of data_coding 0."`
	ReceiptID   string   `key:"receipt_id" default:"same" enum:"same,hex_to_dec,dec_to_hex" doc:"How ids in receipts have to be changed to be those of the answers."`
	Region      string   `key:"region" doc:"Country of numbers that the carrier writes in national form."`
	Errors      []string `key:"errors" doc:"What statuses of the carrier's own mean, as 0x0401=insufficient_funds."`
	Window      int      `key:"window" default:"10" min:"1" max:"1000" doc:"Texts that may be without an answer."`
	Rate        int      `key:"rate" default:"10" min:"1" max:"10000" doc:"Texts a second."`
	VendorUse
}

// HTTP is any service that takes a request for each text.
type HTTP struct {
	URL            string   `key:"url" doc:"Address that is called for each text."`
	Secret         Secret   `key:"secret" secret:"true" doc:"whsec_… that signs requests and receipts (Standard Webhooks), of 24 bytes or more. Empty: requests are not signed, receipts refused."`
	Sender         string   `key:"sender" doc:"Sender id."`
	Channels       []string `key:"channels" default:"sms" doc:"Channels that the service carries: sms, whatsapp, voice."`
	Method         string   `key:"method" default:"POST" doc:"Method of the request."`
	Headers        []string `key:"headers" doc:"Further headers, as Name: value. Values are templates."`
	Authorization  Secret   `key:"authorization" secret:"true" doc:"Authorization header."`
	Body           string   `key:"body" doc:"Template of the body, over .ID .To .Digits .From .Channel .Code .Text .Locale .Purpose .Expires .Callback, with functions json and query. Empty: the JSON of the contract."`
	Type           string   `key:"type" default:"application/json" doc:"Content type of the body."`
	CodeField      string   `key:"code_field" default:"code" doc:"Where the JSON answer has its code, with dots between names."`
	ReferenceField string   `key:"reference_field" default:"reference" doc:"Where the JSON answer has the service's name for the text."`
	SuccessCodes   []string `key:"success_codes" doc:"Codes that mean success, with a status of 2xx. Empty: ok, and no code."`
	Errors         []string `key:"errors" doc:"What other codes mean, as code=class."`
	Idempotent     bool     `key:"idempotent" default:"false" doc:"A service with a body of its own recognises a repeated id."`
	HideCode       bool     `key:"hide_code" default:"false" doc:"The contract's JSON holds the text alone."`
	VendorUse
}

// Used names the vendors that have settings, in order.
func (v *Vendors) Used() []string {
	var used []string
	def := reflect.ValueOf(Default().SMS.Vendors)
	own := reflect.ValueOf(*v)
	for i := range own.NumField() {
		if !reflect.DeepEqual(own.Field(i).Interface(), def.Field(i).Interface()) {
			used = append(used, own.Type().Field(i).Tag.Get("key"))
		}
	}
	return used
}

// AllCountries in sms.countries stands for every one.
const AllCountries = "*"

// Served reports whether a country is texted.
func (s *SMS) Served(country string) bool {
	return slices.Contains(s.Countries, AllCountries) || slices.Contains(s.Countries, country)
}

// PerCountry reads "US=value" and "value" lists: the latter is under "".
func PerCountry(list []string) (map[string]string, error) {
	values := map[string]string{}
	for _, item := range list {
		country, value, found := strings.Cut(item, "=")
		if !found {
			country, value = "", item
		} else if country = strings.ToUpper(strings.TrimSpace(country)); !isCountry(country) {
			return nil, fmt.Errorf("%q is not a country", country)
		}
		values[country] = strings.TrimSpace(value)
	}
	return values, nil
}

func isCountry(country string) bool {
	region, err := language.ParseRegion(country)
	return err == nil && region.IsCountry() && len(country) == 2
}

// minToken is how long a token in a path has to be: 128 bits in base64.
const minToken = 22

// minSigning is how long a secret that vendors sign with has to be.
const minSigning = 16

// checkVendors finds what is wrong with what operators say of any vendor. What a vendor itself needs its driver knows.
func (c *Config) checkVendors(report func(key, what, cure string)) {
	vendors := reflect.ValueOf(&c.SMS.Vendors).Elem()
	for i := range vendors.NumField() {
		path := "sms.vendors." + vendors.Type().Field(i).Tag.Get("key")
		if url := vendors.Field(i).FieldByName("BaseURL"); url.IsValid() {
			checkAddress(path+".base_url", url.String(), report)
		}
		if token := vendors.Field(i).FieldByName("WebhookToken"); token.IsValid() && token.String() != "" && len(token.String()) < minToken {
			report(path+".webhook_token", "is so short that it can be guessed", fmt.Sprintf("use at least %d letters and digits at random", minToken))
		}
		for _, name := range []string{"SignatureSecret", "AppSecret", "HMACSecret"} {
			checkSigning(path, vendors.Field(i), name, report)
		}
		use, ok := vendors.Field(i).FieldByName("VendorUse"), false
		if use.IsValid() {
			_, ok = use.Interface().(VendorUse)
		}
		if !ok {
			continue
		}
		u, _ := use.Addr().Interface().(*VendorUse)
		senders, err := PerCountry(u.Senders)
		if _, general := senders[""]; err == nil && general {
			err = errors.New("one names no country")
		}
		if err != nil {
			report(path+".senders", err.Error(), "write them as US=+12025550100; the one for all other countries is sender")
		}
		costs, err := PerCountry(u.Costs)
		for _, cost := range costs {
			if n, bad := strconv.ParseFloat(cost, 64); bad != nil || n < 0 {
				err = fmt.Errorf("%q is not a cost", cost)
			}
		}
		if err != nil {
			report(path+".costs", err.Error(), "write them as 0.008, or FR=0.05 for one country")
		}
		for j, country := range u.Countries {
			if u.Countries[j] = strings.ToUpper(country); !isCountry(u.Countries[j]) {
				report(path+".countries", fmt.Sprintf("%q is not a country", country), "write ISO 3166-1 codes of two letters, such as US")
			}
		}
	}
	checkSigning("sms.vendors.courier", vendors.FieldByName("Courier"), "Secret", report)
	checkAddress("sms.vendors.http.url", c.SMS.Vendors.HTTP.URL, report)
	sim := c.SMS.Vendors.Simulator.URL
	checkAddress("sms.vendors.simulator.url", sim, report)
	if u, err := url.Parse(sim); err == nil && sim != "" && !Loopback(u.Hostname()) && c.Production() {
		report("sms.vendors.simulator.url", "leaves this machine: a simulator shows every code to whoever asks", "use the simulator on loopback only")
	}
}

// checkSigning looks at a secret that vendors sign with: whoever guesses it reports in their name.
func checkSigning(path string, vendor reflect.Value, name string, report func(key, what, cure string)) {
	field, found := vendor.Type().FieldByName(name)
	if !found {
		return
	}
	if secret := vendor.FieldByIndex(field.Index).String(); secret != "" && len(secret) < minSigning {
		report(path+"."+field.Tag.Get("key"), "is so short that it can be guessed", fmt.Sprintf("have the vendor use one of at least %d characters", minSigning))
	}
}

func checkAddress(key, value string, report func(key, what, cure string)) {
	if u, err := url.Parse(value); value != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		report(key, "is not a web address", "write it as https://…")
	}
}

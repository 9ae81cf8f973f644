package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// EnvPrefix begins the name of every variable.
const EnvPrefix = "WATCHWORD_"

// Secret is a value that prints, logs and marshals as "[secret]".
type Secret string

const masked = "[secret]"

// Reveal is the value itself.
func (s Secret) Reveal() string { return string(s) }

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the value from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON hides the value.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// Size is a number of bytes, written with a unit: 64KiB, 19MiB, 1GiB.
type Size int64

var units = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// ParseSize reads what [Size.String] writes.
func ParseSize(text string) (Size, error) {
	for _, unit := range units {
		digits, found := strings.CutSuffix(text, unit.suffix)
		if !found {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/unit.bytes {
			break
		}
		return Size(n * unit.bytes), nil
	}
	return 0, fmt.Errorf("not a size")
}

// String writes the size with the largest unit that is exact.
func (s Size) String() string {
	for _, unit := range units {
		if int64(s)%unit.bytes == 0 && int64(s) >= unit.bytes {
			return strconv.FormatInt(int64(s)/unit.bytes, 10) + unit.suffix
		}
	}
	return "0B"
}

// Option is one key, as its tags describe it.
type Option struct {
	Path     string // "otp.lifetime"
	Default  string
	Min, Max string
	Enum     []string
	Doc      string
	Required bool
	Secret   bool
	Reload   bool
	Type     string // "string", "integer", "boolean", "duration", "size", "list"

	index []int
}

// Env is the variable of the option.
func (o *Option) Env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(o.Path, ".", "__"))
}

// Options lists every key in the order of [Config].
func Options() []Option { return options(reflect.TypeFor[Config](), "", nil) }

func options(t reflect.Type, prefix string, index []int) (all []Option) {
	for i := range t.NumField() {
		f := t.Field(i)
		path, at := prefix+f.Tag.Get("key"), append(slices.Clone(index), i)
		if f.Anonymous {
			all = append(all, options(f.Type, prefix, at)...)
			continue
		}
		kind, leaf := typeName(f.Type)
		if !leaf {
			all = append(all, options(f.Type, path+".", at)...)
			continue
		}
		o := Option{
			Path: path, Default: f.Tag.Get("default"), Min: f.Tag.Get("min"), Max: f.Tag.Get("max"), Doc: f.Tag.Get("doc"),
			Required: f.Tag.Get("required") == "true", Secret: f.Tag.Get("secret") == "true", Reload: f.Tag.Get("reload") == "true",
			Type: kind, index: at,
		}
		if enum := f.Tag.Get("enum"); enum != "" {
			o.Enum = strings.Split(enum, ",")
		}
		all = append(all, o)
	}
	return all
}

func typeName(t reflect.Type) (name string, leaf bool) {
	switch t {
	case reflect.TypeFor[string](), reflect.TypeFor[Secret]():
		return "string", true
	case reflect.TypeFor[int]():
		return "integer", true
	case reflect.TypeFor[bool]():
		return "boolean", true
	case reflect.TypeFor[time.Duration]():
		return "duration", true
	case reflect.TypeFor[Size]():
		return "size", true
	case reflect.TypeFor[[]string](), reflect.TypeFor[[]netip.Prefix]():
		return "list", true
	}
	return "", false
}

// value is what one layer says about a key: a scalar or a list.
type value struct {
	text   string
	list   []string
	isList bool
}

// parse turns v into the field's type. Its errors say what is expected and never repeat what was given.
func parse(t reflect.Type, v value) (any, error) {
	if v.isList && t.Kind() != reflect.Slice {
		return nil, fmt.Errorf("a list where a single value is expected")
	}
	items := v.list
	if !v.isList {
		items = splitList(v.text)
	}
	switch t {
	case reflect.TypeFor[string]():
		return v.text, nil
	case reflect.TypeFor[Secret]():
		return Secret(v.text), nil
	case reflect.TypeFor[int]():
		n, err := strconv.Atoi(v.text)
		if err != nil {
			return nil, fmt.Errorf("not a whole number")
		}
		return n, nil
	case reflect.TypeFor[bool]():
		switch v.text {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("neither true nor false")
	case reflect.TypeFor[time.Duration]():
		d, err := time.ParseDuration(v.text)
		if err != nil {
			return nil, fmt.Errorf("not a duration such as 30s, 10m or 12h")
		}
		return d, nil
	case reflect.TypeFor[Size]():
		size, err := ParseSize(v.text)
		if err != nil {
			return nil, fmt.Errorf("not a size such as 64KiB or 19MiB")
		}
		return size, nil
	case reflect.TypeFor[[]string]():
		return items, nil
	case reflect.TypeFor[[]netip.Prefix]():
		prefixes := make([]netip.Prefix, 0, len(items))
		for _, item := range items {
			prefix, err := parsePrefix(item)
			if err != nil {
				return nil, fmt.Errorf("not a list of networks such as 10.0.0.0/8 or 192.0.2.7")
			}
			prefixes = append(prefixes, prefix)
		}
		return prefixes, nil
	}
	panic("config: field of type " + t.String()) // found by the first test that runs
}

func parsePrefix(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err
}

func splitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// bounds says what is wrong with a value that was parsed, and the cure.
func (o *Option) bounds(v any) (what, cure string) {
	if len(o.Enum) > 0 && !slices.Contains(o.Enum, fmt.Sprint(v)) {
		return fmt.Sprintf("%q is not one of the choices", v), "choose one of " + strings.Join(o.Enum, ", ")
	}
	limit := func(text string) any {
		bound, err := parse(reflect.TypeOf(v), value{text: text})
		if err != nil {
			panic("config: bound of " + o.Path + ": " + err.Error()) // found by the first test that runs
		}
		return bound
	}
	if o.Max != "" && number(v) > number(limit(o.Max)) {
		return fmt.Sprintf("%v is more than %s, which no configuration can raise", v, o.Max), "set at most " + o.Max
	}
	if o.Min != "" && number(v) < number(limit(o.Min)) {
		return fmt.Sprintf("%v is less than %s", v, o.Min), "set at least " + o.Min
	}
	return "", ""
}

func number(v any) int64 { return reflect.ValueOf(v).Int() }

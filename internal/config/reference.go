package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
)

// Text is the value of option o in c, as a file would have it. Secrets are masked.
func (o *Option) Text(c *Config) string {
	switch v := reflect.ValueOf(c).Elem().FieldByIndex(o.index).Interface().(type) {
	case []string:
		return strings.Join(v, ",")
	case []netip.Prefix:
		texts := make([]string, len(v))
		for i, prefix := range v {
			texts[i] = prefix.String()
		}
		return strings.Join(texts, ",")
	default:
		return fmt.Sprint(v)
	}
}

// YAML writes c as a file, with where each value comes from. Secrets are masked.
func (c *Config) YAML(origins Origins) string {
	return file(func(o *Option) (text, note string, comment bool) {
		if origin := origins[o.Path]; origin != "" {
			note = "from " + origin
		}
		text = o.Text(c)
		return text, note, text == "" && note == ""
	})
}

// JSON writes c as an object. Secrets are masked.
func (c *Config) JSON() ([]byte, error) {
	root := map[string]any{}
	for _, o := range Options() {
		var v any = o.Text(c)
		switch field := reflect.ValueOf(c).Elem().FieldByIndex(o.index).Interface(); o.Type {
		case "integer", "boolean":
			v = field
		case "list":
			v = append([]string{}, splitList(o.Text(c))...)
		}
		node(root, strings.Split(o.Path, "."))[last(o.Path)] = v
	}
	return json.MarshalIndent(root, "", "  ")
}

// Sample is a file with every key, its meaning and its default, all but the required ones commented out. given are values to fill in.
func Sample(given map[string]string) string {
	var b strings.Builder
	b.WriteString("# Watchword. Every key is optional unless it is set here; what is commented out shows the default.\n")
	b.WriteString("# Check it with: watchword config check --config <this file>\n\n")
	group := ""
	for _, o := range Options() {
		group = heading(&b, group, o.Path)
		indent := strings.Repeat("  ", strings.Count(o.Path, "."))
		note := ""
		if o.Max != "" {
			note = fmt.Sprintf(" From %s to %s.", o.Min, o.Max)
		}
		if len(o.Enum) > 0 {
			note = " One of " + strings.Join(o.Enum, ", ") + "."
		}
		fmt.Fprintf(&b, "%s# %s%s\n", indent, o.Doc, note)
		name, text := last(o.Path), quote(&o, o.Default)
		if o.Secret {
			name += "_file"
		}
		if v, ok := given[o.Path]; ok {
			fmt.Fprintf(&b, "%s%s: %s\n", indent, name, quote(&o, v))
			continue
		}
		fmt.Fprintf(&b, "%s#%s: %s\n", indent, name, text)
	}
	return b.String()
}

// Markdown is the reference page.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Generated from internal/config. Change the tags there, then: go test ./internal/config -update -->

Defaults < YAML files (` + "`--config`, repeatable" + `) < environment < ` + "`--set key=value`" + `. The variable of a key is its path in capitals with ` + "`__`" + `
between the parts: ` + "`otp.lifetime` is `WATCHWORD_OTP__LIFETIME`" + `. A secret is best given as the name of a file that holds it: ` + "`database.dsn_file`" + ` or
` + "`WATCHWORD_DATABASE__DSN_FILE`" + `. Durations are written ` + "`30s`, `10m`, `12h`; sizes `64KiB`, `19MiB`; lists as YAML or with commas" + `.

Unknown keys are errors. ` + "`watchword config check`" + ` reports all problems at once, each with its cure, and exits with 3. Bounds cannot be raised by
configuration. Keys marked *reload* are read again on SIGHUP; every other change needs a restart.

| key | type | default | bounds | meaning |
|---|---|---|---|---|
`)
	for _, o := range Options() {
		kind, def, bounds := o.Type, "", ""
		if o.Secret {
			kind = "secret"
		}
		if o.Default != "" {
			def = "`" + o.Default + "`"
		}
		if o.Required {
			def = "*required*"
		}
		if o.Max != "" {
			bounds = o.Min + " to " + o.Max
		}
		if len(o.Enum) > 0 {
			bounds = strings.Join(o.Enum, ", ")
		}
		doc := o.Doc
		if o.Reload {
			doc += " *Reload.*"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", o.Path, kind, def, bounds, doc)
	}
	return b.String()
}

// Schema is the JSON Schema of a file.
func Schema() ([]byte, error) {
	root := object("Watchword configuration")
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	for _, o := range Options() {
		parent := root
		for part := range strings.SplitSeq(strings.TrimSuffix(o.Path, last(o.Path)), ".") {
			if part == "" {
				continue
			}
			properties := parent["properties"].(map[string]any)
			if properties[part] == nil {
				properties[part] = object("")
			}
			parent = properties[part].(map[string]any)
		}
		properties := parent["properties"].(map[string]any)
		properties[last(o.Path)] = o.schema()
		if o.Secret {
			properties[last(o.Path)+"_file"] = map[string]any{"type": "string", "description": "Name of a file that holds " + o.Path + "."}
		}
	}
	return json.MarshalIndent(root, "", "  ")
}

func (o *Option) schema() map[string]any {
	s := map[string]any{"description": o.Doc}
	switch o.Type {
	case "integer":
		s["type"] = "integer"
		for key, bound := range map[string]string{"minimum": o.Min, "maximum": o.Max, "default": o.Default} {
			if bound != "" {
				s[key] = json.Number(bound)
			}
		}
		return s
	case "boolean":
		s["type"], s["default"] = "boolean", o.Default == "true"
		return s
	case "list":
		s["type"], s["items"] = "array", map[string]any{"type": "string"}
		return s
	case "duration":
		s["type"], s["pattern"] = "string", `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	case "size":
		s["type"], s["pattern"] = "string", `^[0-9]+(B|KiB|MiB|GiB)$`
	default:
		s["type"] = "string"
	}
	if len(o.Enum) > 0 {
		s["enum"] = o.Enum
	}
	if o.Default != "" {
		s["default"] = o.Default
	}
	if o.Max != "" {
		s["description"] = fmt.Sprintf("%s From %s to %s.", o.Doc, o.Min, o.Max)
	}
	return s
}

func object(title string) map[string]any {
	o := map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{}}
	if title != "" {
		o["title"] = title
	}
	return o
}

// file writes all options as YAML, grouped.
func file(show func(o *Option) (text, note string, comment bool)) string {
	var b strings.Builder
	group := ""
	for _, o := range Options() {
		group = heading(&b, group, o.Path)
		text, note, comment := show(&o)
		line := last(o.Path) + ": " + quote(&o, text)
		if comment {
			line = "#" + line
		}
		if note != "" {
			line += " # " + note
		}
		b.WriteString(strings.Repeat("  ", strings.Count(o.Path, ".")) + line + "\n")
	}
	return b.String()
}

// heading opens the groups that path is in and that the key before was not.
func heading(b *strings.Builder, before, path string) string {
	group := path[:max(0, strings.LastIndexByte(path, '.'))]
	if group == before || group == "" {
		return group
	}
	parts := strings.Split(group, ".")
	for i := range parts {
		if opened := strings.Join(parts[:i+1], "."); before == opened || strings.HasPrefix(before, opened+".") {
			continue
		}
		if i == 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strings.Repeat("  ", i) + parts[i] + ":\n")
	}
	return group
}

func quote(o *Option, text string) string {
	switch o.Type {
	case "list":
		items := splitList(text)
		for i := range items {
			items[i] = fmt.Sprintf("%q", items[i])
		}
		return "[" + strings.Join(items, ", ") + "]"
	case "string":
		return fmt.Sprintf("%q", text)
	}
	return text
}

func node(root map[string]any, parts []string) map[string]any {
	for _, part := range parts[:len(parts)-1] {
		if root[part] == nil {
			root[part] = map[string]any{}
		}
		root = root[part].(map[string]any)
	}
	return root
}

func last(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

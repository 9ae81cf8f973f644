package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Sources are where a configuration comes from, weakest first.
type Sources struct {
	Files []string // YAML
	Env   []string // as os.Environ gives it
	Flags []string // "key=value", never a secret
}

// Problem is one thing that is wrong, and how to right it.
type Problem struct { //nolint:errname // it is data as well
	Key   string `json:"key,omitempty"`
	Where string `json:"where,omitempty"` // "watchword.yaml:12", "WATCHWORD_LISTEN", "--set"
	What  string `json:"what"`
	Cure  string `json:"hint,omitempty"`
}

func (p *Problem) Error() string {
	text := p.What
	if p.Key != "" {
		text = p.Key + ": " + text
	}
	if p.Where != "" {
		text = p.Where + ": " + text
	}
	return text
}

// Problems finds every [Problem] in err.
func Problems(err error) []*Problem {
	var one *Problem
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Problem
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	if errors.As(err, &one) {
		return []*Problem{one}
	}
	return nil
}

// Origins say which layer gave each key that is not the default.
type Origins map[string]string

// Default is the configuration without any file or variable. It lacks what is required.
func Default() *Config {
	c := new(Config)
	for _, o := range Options() {
		if o.Default == "" {
			continue
		}
		field := reflect.ValueOf(c).Elem().FieldByIndex(o.index)
		v, err := parse(field.Type(), value{text: o.Default})
		if err != nil {
			panic("config: default of " + o.Path + ": " + err.Error()) // found by the first test that runs
		}
		field.Set(reflect.ValueOf(v))
	}
	return c
}

// Load puts the layers together and checks the result. The error joins every [Problem]. With it comes the configuration as far as it could be read,
// for whoever looks for further problems; it is nil when a file could not be read at all.
func Load(src Sources) (*Config, Origins, error) {
	l := loader{config: Default(), origins: Origins{}, options: Options()}
	for _, file := range src.Files {
		if err := l.file(file); err != nil {
			return nil, nil, err
		}
	}
	l.environment(src.Env)
	l.flags(src.Flags)
	l.complete()
	return l.config, l.origins, errors.Join(l.problems...)
}

// Check looks at a configuration that was not loaded but made.
func (c *Config) Check() error {
	l := loader{config: c, origins: Origins{}, options: Options()}
	l.complete()
	return errors.Join(l.problems...)
}

type loader struct {
	config   *Config
	origins  Origins
	options  []Option
	problems []error
}

func (l *loader) report(key, where, what, cure string) {
	l.problems = append(l.problems, &Problem{Key: key, Where: where, What: what, Cure: cure})
}

// set gives one key its value, from one place.
func (l *loader) set(o *Option, v value, where string) {
	field := reflect.ValueOf(l.config).Elem().FieldByIndex(o.index)
	parsed, err := parse(field.Type(), v)
	if err != nil {
		l.report(o.Path, where, err.Error(), "see: watchword config schema")
		return
	}
	field.Set(reflect.ValueOf(parsed))
	l.origins[o.Path] = where
	if what, cure := o.bounds(parsed); what != "" {
		l.report(o.Path, where, what, cure)
	}
}

// layer collects what one place says, so that a value and its _FILE can be held against each other.
type layer struct {
	values map[string]value
	files  map[string]string // path of a secret → name of the file that holds it
	wheres map[string]string
}

func newLayer() *layer {
	return &layer{values: map[string]value{}, files: map[string]string{}, wheres: map[string]string{}}
}

func (l *loader) apply(la *layer) {
	for i := range l.options {
		o := &l.options[i]
		v, given := la.values[o.Path]
		name, byFile := la.files[o.Path]
		switch {
		case given && byFile:
			l.report(o.Path, la.wheres[o.Path], "is given both as a value and as a file", "leave only the file")
		case byFile:
			content, what, cure := readSecret(name, o)
			if what != "" {
				l.report(o.Path, la.wheres[o.Path+"_file"], what, cure)
			}
			if content != "" {
				l.set(o, value{text: content}, la.wheres[o.Path+"_file"])
			}
		case given:
			l.set(o, v, la.wheres[o.Path])
		}
	}
}

// readSecret reads a file that holds one secret; a line break at its end is not part of it. what and cure say what is wrong with the file: one that
// others may read is, though it can be used to look further.
func readSecret(name string, o *Option) (content, what, cure string) {
	missing := "write the secret into it"
	if strings.HasSuffix(o.Path, "dsn") {
		missing = "write the connection string into it"
	}
	missing += ", and let nobody but the server's user read it (chmod 600)"
	info, err := os.Stat(name)
	var data []byte
	if err == nil {
		data, err = os.ReadFile(name) //nolint:gosec // the operator names it
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Sprintf("file %s does not exist", name), missing
	case err != nil:
		return "", fmt.Sprintf("file %s: %s", name, plain(err)), "make the file readable for the server's user, and for nobody else"
	}
	content = strings.TrimRight(string(data), "\r\n")
	if content == "" {
		return "", fmt.Sprintf("file %s is empty", name), missing
	}
	if info.Mode().Perm()&0o007 != 0 { // its group may be the server's
		return content, fmt.Sprintf("file %s can be read by other users", name), "chmod 600 it, owned by the server's user"
	}
	return content, "", ""
}

// find is the option of a path. byFile says that the path names the file of a secret.
func (l *loader) find(path string) (o *Option, byFile bool) {
	for i := range l.options {
		o := &l.options[i]
		if o.Path == path {
			return o, false
		}
		if o.Secret && o.Path+"_file" == path {
			return o, true
		}
	}
	return nil, false
}

func (l *loader) unknown(path, where string) {
	cure := "see all keys with: watchword config schema"
	if nearest := l.nearest(path); nearest != "" {
		cure = fmt.Sprintf("did you mean %s?", nearest)
	}
	l.report(path, where, "unknown key", cure)
}

// file reads one YAML file. Only what makes the rest meaningless is returned; the rest is reported.
func (l *loader) file(name string) error {
	content, err := os.ReadFile(name) //nolint:gosec // the operator names it
	if err != nil {
		return &Problem{Where: name, What: "cannot be read: " + plain(err), Cure: "name an existing file with --config, or make one with: watchword init"}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil // empty
	} else if err != nil {
		return &Problem{Where: name, What: "is not YAML: " + strings.TrimPrefix(err.Error(), "yaml: "), Cure: "indent with spaces, and quote values that hold : or #"}
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return &Problem{Where: name, What: "holds more than one document", Cure: "remove the line with ---, or use several files"}
	}
	la := newLayer()
	l.walk(name, "", document.Content[0], la)
	l.apply(la)
	l.inline(la)
	return nil
}

func (l *loader) walk(file, prefix string, node *yaml.Node, la *layer) {
	if node.Kind != yaml.MappingNode {
		l.report(strings.TrimSuffix(prefix, "."), at(file, node), "keys are expected here", "write key: value, one a line")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, content := node.Content[i], node.Content[i+1]
		if content.Kind == yaml.AliasNode {
			content = content.Alias
		}
		path := prefix + key.Value
		if seen[path] {
			l.report(path, at(file, key), "is given twice", "remove one of them")
		}
		seen[path] = true
		if content.Kind == yaml.ScalarNode && content.Tag == "!!null" {
			continue // a key without a value: what a sample file leaves for later
		}
		if l.isGroup(path) {
			l.walk(file, path+".", content, la)
			continue
		}
		o, byFile := l.find(path)
		if o == nil {
			l.unknown(path, at(file, key))
			continue
		}
		v, ok := scalarOrList(content)
		if !ok || byFile && v.isList {
			l.report(path, at(file, content), "a value is expected here", "see: watchword config schema")
			continue
		}
		la.wheres[path] = at(file, content)
		if byFile {
			la.files[o.Path] = v.text
		} else {
			la.values[o.Path] = v
		}
	}
}

func (l *loader) isGroup(path string) bool {
	return slices.ContainsFunc(l.options, func(o Option) bool { return strings.HasPrefix(o.Path, path+".") })
}

func scalarOrList(node *yaml.Node) (value, bool) {
	switch node.Kind {
	case yaml.ScalarNode:
		return value{text: node.Value}, true
	case yaml.SequenceNode:
		v := value{isList: true}
		for _, item := range node.Content {
			if item.Kind != yaml.ScalarNode {
				return value{}, false
			}
			v.list = append(v.list, item.Value)
		}
		return v, true
	}
	return value{}, false
}

func at(file string, node *yaml.Node) string { return fmt.Sprintf("%s:%d", file, node.Line) }

// password finds one in a connection string, in either of its forms.
var password = regexp.MustCompile(`(?i)(^|\s)password\s*=|^[a-z]+://[^/@]*:[^/@]+@|[?&]password=`)

// inline refuses a password in a file that is likely to be shared, copied and committed.
func (l *loader) inline(la *layer) {
	for i := range l.options {
		o := &l.options[i]
		if v, given := la.values[o.Path]; o.Secret && given && password.MatchString(v.text) {
			l.report(o.Path, la.wheres[o.Path], "holds a password in the configuration file",
				fmt.Sprintf("put it into a file of its own and name that with %s_file, or use %s", o.Path, o.Env()))
		}
	}
}

// serviceLink matches what Kubernetes adds to the environment of every container beside a service named watchword.
var serviceLink = regexp.MustCompile(`^WATCHWORD_(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)`)

// ConfigVariable names configuration files where no flag does. It is not a key.
const ConfigVariable = EnvPrefix + "CONFIG"

// Variables of the commands that call a server as a program does. They are no keys either.
const (
	APIVariable    = EnvPrefix + "API"
	APIKeyVariable = EnvPrefix + "API_KEY"
)

func (l *loader) environment(env []string) {
	la := newLayer()
	env = slices.Sorted(slices.Values(env))
	for _, entry := range env {
		name, text, _ := strings.Cut(entry, "=")
		key, ours := strings.CutPrefix(name, EnvPrefix)
		if !ours || text == "" || slices.Contains([]string{ConfigVariable, APIVariable, APIKeyVariable}, name) || serviceLink.MatchString(name) { // empty is how compose files say: not set
			continue
		}
		path := strings.ToLower(strings.ReplaceAll(key, "__", "."))
		o, byFile := l.find(path)
		if o == nil {
			cure := "see all variables with: watchword config env"
			if nearest := l.nearest(path); nearest != "" {
				cure = fmt.Sprintf("did you mean %s%s?", EnvPrefix, strings.ToUpper(strings.ReplaceAll(nearest, ".", "__")))
			}
			l.report("", name, "unknown variable", cure)
			continue
		}
		la.wheres[path] = name
		if byFile {
			la.files[o.Path] = text
		} else {
			la.values[o.Path] = value{text: text}
		}
	}
	l.apply(la)
}

func (l *loader) flags(flags []string) {
	la := newLayer()
	for _, entry := range flags {
		path, text, found := strings.Cut(entry, "=")
		o, byFile := l.find(path)
		switch {
		case !found:
			l.report("", "--set", "is not key=value", "write --set otp.lifetime=5m")
		case o == nil:
			l.unknown(path, "--set")
		case o.Secret && !byFile:
			l.report(path, "--set", "is a secret, and arguments are seen by everybody on the machine", fmt.Sprintf("use %s_file or %s", path, o.Env()))
		case byFile:
			la.wheres[path], la.files[o.Path] = "--set", text
		default:
			la.wheres[path], la.values[o.Path] = "--set", value{text: text}
		}
	}
	l.apply(la)
}

// complete looks at the whole, once all layers are in.
func (l *loader) complete() {
	reported := map[string]bool{}
	for _, p := range Problems(errors.Join(l.problems...)) {
		reported[p.Key] = true
	}
	for i := range l.options {
		o := &l.options[i]
		field := reflect.ValueOf(l.config).Elem().FieldByIndex(o.index)
		if o.Required && field.IsZero() && !reported[o.Path] {
			cure := fmt.Sprintf("set it in a file given with --config, or in %s", o.Env())
			if o.Secret {
				cure = fmt.Sprintf("name a file that holds it in %s_FILE, or set %s", o.Env(), o.Env())
			}
			l.report(o.Path, "", "is not set", cure)
			continue
		}
		if what, cure := o.bounds(field.Interface()); what != "" && !reported[o.Path] {
			l.report(o.Path, l.origins[o.Path], what, cure)
		}
	}
	l.config.check(func(key, what, cure string) {
		if !reported[key] {
			l.report(key, l.origins[key], what, cure)
		}
	})
}

// nearest is the key that was probably meant, or "".
func (l *loader) nearest(path string) string {
	best, distance := "", 1+len(path)/3
	for _, o := range l.options {
		for group := o.Path; strings.Contains(group, "."); { // sms.vendors.twillio
			group = group[:strings.LastIndexByte(group, '.')]
			if d := editDistance(path, group); d < distance && strings.Count(path, ".") == strings.Count(group, ".") {
				best, distance = group, d
			}
		}
		candidates := []string{o.Path}
		if o.Secret {
			candidates = append(candidates, o.Path+"_file")
		}
		for _, candidate := range candidates {
			if d := editDistance(path, candidate); d < distance {
				best, distance = candidate, d
			}
		}
		// A key in the wrong place: lifetime instead of otp.lifetime.
		if last := o.Path[strings.LastIndexByte(o.Path, '.')+1:]; best == "" && path == last {
			return o.Path
		}
	}
	return best
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

func plain(err error) string {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

package web

import (
	"bytes"
	"compress/gzip"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"github.com/watchword-auth/watchword/authn"
)

// catalogue reads the ids of one language, with all plural forms.
func catalogue(t *testing.T, name string) map[string]string {
	t.Helper()
	data, err := catalogues.ReadFile("locales/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	flat := map[string]string{}
	var walk func(prefix string, v any)
	walk = func(prefix string, v any) {
		switch v := v.(type) {
		case string:
			flat[prefix] = v
		case map[string]any:
			for key, value := range v {
				walk(strings.TrimPrefix(prefix+"."+key, "."), value)
			}
		}
	}
	walk("", tree)
	return flat
}

func TestCatalogues(t *testing.T) {
	t.Parallel()
	english := catalogue(t, "en.toml")
	files, err := catalogues.ReadDir("locales")
	if err != nil {
		t.Fatal(err)
	}
	values := regexp.MustCompile(`\{\{\.(\w+)\}\}`)
	forbidden := regexp.MustCompile(`(?i)\b(otp|2fa|mfa|token|invalid|credentials|please|oops|bitte)\b|!|[<>&]`)
	for _, f := range files {
		texts := catalogue(t, f.Name())
		for id, text := range english {
			other, ok := texts[id]
			if !ok {
				t.Errorf("%s lacks %s", f.Name(), id)
				continue
			}
			want, got := values.FindAllString(text, -1), values.FindAllString(other, -1)
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(want, got) {
				t.Errorf("%s: %s fills in %v, want %v", f.Name(), id, got, want)
			}
		}
		for id, text := range texts {
			if _, ok := english[id]; !ok {
				t.Errorf("%s has %s, which English lacks", f.Name(), id)
			}
			if word := forbidden.FindString(text); word != "" {
				t.Errorf("%s: %s says %q", f.Name(), id, word)
			}
		}
	}
}

// TestIDs holds what templates and code ask for against the catalogue: nothing missing, nothing unused.
func TestIDs(t *testing.T) {
	t.Parallel()
	english, used, names := catalogue(t, "en.toml"), map[string]bool{}, map[string]bool{}
	quoted, named := regexp.MustCompile(`"([a-z]+\.[a-z_]+)"`), regexp.MustCompile(`"\.?([a-z_]+)"`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") || !strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, ".html") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, found := range quoted.FindAllStringSubmatch(string(data), -1) {
			used[found[1]] = true
		}
		if path == "answer.go" || path == "enrol.go" {
			for _, found := range named.FindAllStringSubmatch(string(data), -1) {
				names[found[1]] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	asked := func(id string) bool {
		group, name, _ := strings.Cut(id, ".")
		if !used[id] && slices.Contains([]string{"answer", "app", "backup", "enrolphone", "enrolapp", "enrolbackup", "enrolnew"}, group) { // asked for by name, and by the group of the page
			return names[strings.TrimSuffix(strings.TrimSuffix(name, ".one"), ".other")]
		}
		if group == "outcome" || slices.Contains([]string{"forgot", "access", "stop"}, group) && (name == "title" || name == "intro") { // asked for by what is recovered, and by how it ended
			return true
		}
		return used[id] || group == "problem" || group == "consent" || group == "answered" || group == "activity" || group == "factor" || strings.HasPrefix(id, "account.said_") || group == "password" && slices.Contains([]string{"empty", "short", "long.one", "long.other", "common", "chars", "same"}, name) || slices.Contains([]string{"methods.sms", "methods.sms_down", "methods.totp", "methods.backup_code"}, id) || used[strings.TrimSuffix(strings.TrimSuffix(id, ".one"), ".other")] && name != ""
	}
	for id := range english {
		if !asked(id) {
			t.Errorf("%s is not used", id)
		}
	}
	for name := range map[string]bool{"title": true, "intro": true, "label": true, "hint": true, "empty": true, "short": true, "long": true, "chars": true, "wrong": true, "wrong_left.other": true,
		"used": true, "expired": true, "dead": true, "left.other": true} { // what any page of a factor falls back to
		if english["answer."+name] == "" {
			t.Errorf("answer.%s has no text", name)
		}
	}
	for _, event := range authn.Activities() {
		if id := "activity." + strings.ReplaceAll(event, ".", "_"); english[id] == "" {
			t.Errorf("%s has no text", id)
		}
	}
	for _, said := range sayings() {
		if english["account.said_"+said] == "" {
			t.Errorf("account.said_%s has no text", said)
		}
	}
	for id := range used {
		_, single := english[id]
		_, plural := english[id+".other"]
		if group, _, _ := strings.Cut(id, "."); !single && !plural && slices.Contains([]string{"page", "login", "code", "enrol", "phone", "answer", "send", "methods", "help", "consent", "signout", "formpost", "problem", "account", "password",
			"recover", "forgot", "access", "stop", "link", "waiting", "repair", "outcome", "confirm"}, group) &&
			!strings.HasSuffix(id, ".html") && !strings.HasSuffix(id, ".css") && !strings.HasSuffix(id, ".js") {
			t.Errorf("%s has no text", id)
		}
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	total := 0
	for name, limit := range map[string]int{"assets/app.js": 6 << 10, "assets/app.css": 20 << 10} {
		data, err := assets.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > limit {
			t.Errorf("%s has %d bytes, more than %d", name, len(data), limit)
		}
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		w.Write(data) //nolint:errcheck // into memory
		w.Close()     //nolint:errcheck // into memory
		total += packed.Len()
	}
	if total > 50<<10 {
		t.Errorf("%d bytes compressed", total)
	}
}

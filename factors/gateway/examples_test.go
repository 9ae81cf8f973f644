package gateway_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The programs of examples/otp verify a phone: one wrong code, then the right one. Without an interpreter of Python, Java or PHP theirs are left out.
func TestExamplePrograms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := httptest.NewServer(w.handlers[0])
	t.Cleanup(server.Close)
	const examples = "../../examples/otp/"
	binary := filepath.Join(t.TempDir(), "otp")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, examples).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n := 20
	for language, program := range map[string][]string{
		"go": {binary}, "curl": {"bash", examples + "verify.sh"}, "node": {"node", examples + "verify.mjs"},
		"python": {"python3", examples + "verify.py"}, "java": {"java", examples + "Verify.java"}, "php": {"php", examples + "verify.php"},
	} {
		n++ // a number each, for a new verification of one takes the place of that before
		own, hint := fmt.Sprintf("+120255501%d", n), strconv.Itoa(n)
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(program[0]); err != nil && (language == "python" || language == "java" || language == "php") {
				t.Skip("there is no " + program[0])
			}
			run := func(number, typed string) (string, error) {
				cmd := exec.CommandContext(t.Context(), program[0], append(program[1:], number)...)
				cmd.Env = append(os.Environ(), "WATCHWORD_API="+server.URL, "WATCHWORD_API_KEY="+w.test, "PYTHONIOENCODING=utf-8")
				cmd.Stdin = strings.NewReader(typed)
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			if out, err := run(own, "000000\n123456\n"); err != nil || out != "Sent to ••"+hint+"\nWrong code, attempts left: 4\nVerified\n" {
				t.Errorf("%v\n%s", err, out)
			}
			if out, err := run("+12025550105", "123456\n"); err == nil || !strings.Contains(out, "opted_out") {
				t.Errorf("refused: %v\n%s", err, out)
			}
			if out, err := run(own, "000000\n"); err == nil || strings.Contains(out, "Verified") {
				t.Errorf("a wrong code: %v\n%s", err, out)
			}
		})
	}
}

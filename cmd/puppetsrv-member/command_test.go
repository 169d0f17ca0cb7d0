package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/puppetsrv/puppetsrv/internal/release"
)

// try runs a command as a shell would.
func try(t *testing.T, args ...string) (code int, out, errout string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, &o, &e)
	return code, o.String(), e.String()
}

// file is a member.yaml that nobody runs by.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "member.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const small = `layout: debian
certname: m1.example.net
datacenter: datacenter1
nodes: [ns1.example.net]
gossip: {bind: "127.0.0.1:7946"}
listen: 127.0.0.1:8154
`

// Whatever is wrong is told in a line or two that says what would be right.
func TestMistakes(t *testing.T) {
	good := file(t, small+"socket: "+filepath.Join(t.TempDir(), "none.sock")+"\n")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"dance"}, exitUsage, "see `puppetsrv-member --help`"},
		{[]string{"drain", "-c", good}, exitUsage, "--reason"},
		{[]string{"gate", "httpd", "-c", good}, exitUsage, "puppetserver"},
		{[]string{"plan", "ajar", "-c", good}, exitUsage, "standby"},
		{[]string{"-c", "/nonexistent/member.yaml"}, exitUsage, "/nonexistent/member.yaml does not exist: write it, or name another one with --config"},
		{[]string{"-c", file(t, small+"datacentre: x\n")}, exitUsage, "member.yaml:7"},
		{[]string{"status", "-c", good}, exitUnreachable, "is puppetsrv-member.service started?"},
		{[]string{"undrain", "-c", good}, exitUnreachable, "no member runs on this host"},
		{[]string{"gate", "puppetserver", "--wait", "300ms", "-c", good}, exitUnreachable, "no member runs on this host"},
		{[]string{"leave", "-c", good}, exitUnreachable, "no member runs on this host"},
		{[]string{"run", "-c", good}, exitFailed, "m1.example.net.pem"}, // there is no such certificate
	} {
		code, out, errout := try(t, c.args...)
		if code != c.code || !strings.Contains(errout, c.want) || !strings.HasPrefix(errout, "puppetsrv-member: ") || out != "" {
			t.Errorf("%q: exit code %d, %q, %q; want %d and %q", c.args, code, out, errout, c.code, c.want)
		}
	}
}

func TestVersion(t *testing.T) {
	if code, out, errout := try(t, "version"); code != 0 || out != "puppetsrv-member "+release.Version+"\n" || errout != "" {
		t.Errorf("%d, %q, %q", code, out, errout)
	}
}

func TestHelp(t *testing.T) {
	code, out, errout := try(t, "--help")
	if code != 0 || !strings.Contains(out, "Exit codes:") || errout != "" {
		t.Errorf("%d, %q, %q", code, out, errout)
	}
}

// The man page names every command and every flag, and no others.
func TestManPage(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	synopsis, _, _ := strings.Cut(string(page), "## Description")
	var g grammar
	parser, err := kong.New(&g)
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]bool{"help": true}
	for _, command := range parser.Model.Children {
		if !strings.Contains(synopsis, "puppetsrv-member "+command.Name) && !strings.Contains(synopsis, "puppetsrv-member ["+command.Name) {
			t.Errorf("the synopsis lacks %s", command.Name)
		}
		for _, f := range command.Flags {
			flags[f.Name] = true
			if !strings.Contains(string(page), "--"+f.Name) && f.Name != "output" {
				t.Errorf("the man page lacks --%s of %s", f.Name, command.Name)
			}
		}
	}
	for _, f := range parser.Model.Flags {
		flags[f.Name] = true
	}
	for _, m := range regexp.MustCompile(`--([a-z]+)`).FindAllStringSubmatch(synopsis, -1) {
		if !flags[m[1]] {
			t.Errorf("the synopsis has --%s, which there is not", m[1])
		}
	}
}

// Ctrl-C is no failure of anything.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var o, e bytes.Buffer
	code := run(ctx, []string{"gate", "puppetserver", "-c", file(t, small+"socket: /nonexistent/s\n")}, &o, &e)
	if code != 130 && code != exitUnreachable {
		t.Errorf("exit code %d, %q", code, e.String())
	}
}

package settings_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/puppetsrv/puppetsrv/internal/settings"
)

func TestHOCON(t *testing.T) {
	const all = `# a comment: no = value
include "other.conf"
http-client: {
    // another: 1
    connect-timeout-milliseconds: 2000 # after a value
    "idle-timeout-milliseconds" = "10000", last += x
    ssl-protocols: [TLSv1.3, {a: 1}, TLSv1.2]
    after: "a # and } in quotes"
}
jruby-puppet { gem-path: [${jruby-puppet.gem-home}, "/usr/lib"], gem-home: ${x}/gems
  deep: { er: 1 } }
a.b.c = 5
brace
{ below: yes }
next:
  line
text: """of "more" { quotes"""
`
	var got []string
	settings.HOCON([]byte(all), func(key, value string) { got = append(got, key+" "+value) })
	want := []string{
		"http-client.connect-timeout-milliseconds 2000", "http-client.idle-timeout-milliseconds 10000", "http-client.last x",
		"http-client.after a # and } in quotes", "jruby-puppet.gem-home ${x}/gems", "jruby-puppet.deep.er 1", "a.b.c 5",
		"brace.below yes", "next line", `text of "more" { quotes`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Whatever is in a file, reading it ends.
func FuzzHOCON(f *testing.F) {
	for _, s := range []string{"a: {b: 1}", "}}]", `"`, `"""`, "${", `"\`, "[[{", "=:=", "a {", "#", "//", "\n:"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		settings.HOCON(data, func(key, value string) {
			if value == "" || value != strings.TrimSpace(value) {
				t.Errorf("%q: %q", key, value)
			}
		})
	})
}

// packaged is what a package brings: the block is there, without any bound.
const packaged = "http-client: {\n    #ssl-protocols: [TLSv1.3, TLSv1.2]\n    #metrics-enabled: true\n}\nprofiler: {\n}\n"

func TestFindingsOfTheHTTPClient(t *testing.T) {
	const connect, idle = "connect-timeout-milliseconds", "idle-timeout-milliseconds"
	const held = "warning http-client: a PuppetDB that is silent holds puppetserver's JRubies for that long: "
	const writeConnect = "; write `http-client: { connect-timeout-milliseconds: 2000 }` in DIR/"
	const writeIdle = "; write `http-client: { idle-timeout-milliseconds: 10000 }` in DIR/"
	const write = "; write `http-client: { connect-timeout-milliseconds: 2000, idle-timeout-milliseconds: 10000 }` in DIR/"
	const restart = ", and restart puppetserver when it suits"
	const well = "ok http-client: puppetserver gives up a PuppetDB that is silent: no connection in 2000 ms, nothing on one in 10000 ms"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"no files", nil, "warning http-client: no configuration of puppetserver in DIR: how long it waits for a PuppetDB that is silent is not known; set puppetserver.config"},
		{"as packaged", map[string]string{"puppetserver.conf": packaged}, held + connect + " is not found in DIR, and is then 120000, " + idle + " is not found in DIR, and is then 1200000" + write + "http-client.conf" + restart},
		{"a file of its own", map[string]string{"puppetserver.conf": packaged, "http-client.conf": "http-client: {\n    " + connect + ": 2000\n    " + idle + ": 10000\n}\n"}, well},
		{"one line", map[string]string{"puppetserver.conf": "http-client: { " + connect + ": 2000, " + idle + ": 10000 }"}, well},
		{"in two files", map[string]string{"a.conf": "http-client." + connect + " = 2000", "b.conf": "http-client { " + idle + " = 10000 }"}, well},
		{"JSON", map[string]string{"a.json": `{"http-client": {"` + connect + `": 2000, "` + idle + `": 10000}}`}, well},
		{"INI", map[string]string{"a.ini": "[http-client]\n" + connect + " = 2000\n" + idle + " = 10000\n"}, well},
		{"a comment", map[string]string{"a.conf": "http-client: {\n# " + connect + ": 2000\n" + idle + ": 10000\n}"}, held + connect + " is not found in DIR, and is then 120000" + writeConnect + "http-client.conf" + restart},
		{"another block", map[string]string{"a.conf": "webserver: { " + connect + ": 2000 }\nhttp-client: { " + idle + ": 10000 }"}, held + connect + " is not found in DIR, and is then 120000" + writeConnect + "http-client.conf" + restart},
		{"too long", map[string]string{"a.conf": "http-client: { " + connect + ": 2000, " + idle + ": 300000 }"}, held + idle + " is 300000 in DIR/a.conf" + writeIdle + "a.conf" + restart},
		{"both, in two files", map[string]string{"a.conf": "http-client.idle-timeout-milliseconds: 99999", "b.conf": "http-client.connect-timeout-milliseconds: 99999"}, held + connect + " is 99999 in DIR/b.conf, " + idle + " is 99999 in DIR/a.conf" + write + "b.conf and DIR/a.conf" + restart},
		{"no bound", map[string]string{"a.conf": "http-client: { " + connect + ": 0, " + idle + ": 10000 }"}, held + connect + " is 0 in DIR/a.conf, which is no bound" + writeConnect + "a.conf" + restart},
		{"from elsewhere", map[string]string{"a.conf": "http-client: { " + connect + ": ${?X}, " + idle + ": 10000 }"}, held + connect + ` is "${?X}" in DIR/a.conf, which is not understood here` + writeConnect + "a.conf" + restart},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f := settings.JudgeHTTPClient(dir)
		f.Text = strings.ReplaceAll(f.Text, dir, "DIR")
		expect(t, c.name, []settings.Finding{f}, c.want)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "a.conf"), 0o700); err != nil {
		t.Fatal(err)
	}
	if f := settings.JudgeHTTPClient(dir); f.Level != settings.LevelWarning || !strings.Contains(f.Text, "a.conf: is a directory: how long") {
		t.Error(said(f))
	}
}

// It is asked for where the host has a PuppetDB, in the directory that its settings name.
func TestCheckReadsTheHTTPClient(t *testing.T) {
	const roles = "roles: {puppetdb: {mode: service, url: 'http://127.0.0.1:1', config: DIR}}\n"
	of := func(m *machine) (all []string) {
		for _, f := range m.settings.Check(t.Context()) {
			if f.Subject == "http-client" {
				all = append(all, strings.ReplaceAll(said(f), m.dir, "DIR"))
			}
		}
		return all
	}
	m := newMachine(t, roles)
	m.settings.Puppetserver.Config = filepath.Join(m.dir, "conf.d")
	m.write("conf.d/puppetserver.conf", []byte(packaged))
	if got := of(m); len(got) != 1 || !strings.HasPrefix(got[0], "warning http-client: ") || !strings.Contains(got[0], " in DIR/conf.d/http-client.conf,") {
		t.Errorf("as packaged: %q", got)
	}
	m.write("conf.d/http-client.conf", []byte("http-client: { connect-timeout-milliseconds: 2000, idle-timeout-milliseconds: 10000 }\n"))
	if got := of(m); len(got) != 1 || !strings.HasPrefix(got[0], "ok http-client: ") {
		t.Errorf("with the bounds: %q", got)
	}
	m.settings.Roles.PuppetDB = nil
	if got := of(m); len(got) != 0 {
		t.Errorf("without a PuppetDB: %q", got)
	}
}

func TestPuppetserversConfiguration(t *testing.T) {
	for layout, want := range map[string]string{"debian": "/etc/puppet/puppetserver/conf.d", "upstream": "/etc/puppetlabs/puppetserver/conf.d"} {
		s, err := settings.Parse("member.yaml", []byte("layout: "+layout+"\n"+strings.ReplaceAll(minimal, "layout: debian\n", "")), settings.Host{Files: fstest.MapFS{}, Name: func() (string, error) { return "m1.example.net", nil }})
		if err != nil {
			t.Fatal(err)
		}
		if s.Puppetserver.Config != want {
			t.Errorf("%s: %s", layout, s.Puppetserver.Config)
		}
	}
}

//go:build linux

package puppet_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// before is a puppet.conf with much that is not ours, and after is what the class makes of it.
const (
	before = `# ours: see the wiki
[main]
  logdir = /var/log/puppet   # not a comment to Puppet
srv_domain = elsewhere.example.org

[agent]
# the old master
server=puppet
environment = production

runinterval = 1800

[server]
server = m1.example.net
# end
`
	after = `# ours: see the wiki
[main]
  logdir = /var/log/puppet   # not a comment to Puppet
srv_domain = elsewhere.example.org

[agent]
# the old master
server=puppet-camaster.example.net
environment = production

runinterval = 1800
http_connect_timeout = 10s
srv_domain = datacenter1.example.net
use_srv_records = true

[server]
server = m1.example.net
# end
`
)

const class = `class { 'puppetsrv::agent': domain => 'example.net', server => 'puppet-camaster.example.net' }`

// with is the class with one more parameter.
func with(parameter string) string {
	return strings.Replace(class, " }", ", "+parameter+" }", 1)
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got := read(t, path); got != want {
		t.Errorf("%s is\n%s\nwant\n%s", filepath.Base(path), got, want)
	}
}

// A host that knows its datacenter by a file: a noop run says what it would do and does nothing, the next does
// it, the third has nothing to do; Puppet finds what it is to find, and `puppet ssl` asks for it.
func TestAgent(t *testing.T) {
	n := puppet(t)
	h := newHost(t, n, "h", "10.9.0.5")
	t.Parallel()
	h.write(t, "puppetsrv/datacenter", "datacenter1\n")
	h.write(t, h.conf, before)
	if err := os.Chmod(h.conf, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(h.conf, 0, 1); err != nil {
		t.Fatal(err)
	}

	said := h.apply(t, 0, class, "--noop")
	for _, name := range []string{"server", "http_connect_timeout", "srv_domain", "use_srv_records"} {
		// How it is said is another thing in Puppet 8.
		if !regexp.MustCompile(`agent/` + name + `\]/value: .*\(noop\)`).MatchString(said) {
			t.Errorf("a noop run does not say that %s would change:\n%s", name, said)
		}
	}
	wantFile(t, h.conf, before)

	said = h.apply(t, 2, class)
	var order []string
	for line := range strings.Lines(said) {
		if _, rest, ok := strings.Cut(line, "Puppetsrv_setting[agent/"); ok {
			name, _, _ := strings.Cut(rest, "]")
			order = append(order, name)
		}
	}
	if got, want := strings.Join(order, " "), "server http_connect_timeout srv_domain use_srv_records"; got != want {
		t.Errorf("set in the order %q, want %q", got, want)
	}
	wantLines(t, said, "value changed 'puppet' to 'puppet-camaster.example.net'")
	wantFile(t, h.conf, after)
	info, err := os.Stat(h.conf)
	if err != nil {
		t.Fatal(err)
	}
	if s := info.Sys().(*syscall.Stat_t); info.Mode() != 0o640 || s.Uid != 0 || s.Gid != 1 {
		t.Errorf("puppet.conf has mode %v, owner %d, group %d, want 0640, 0, 1", info.Mode(), s.Uid, s.Gid)
	}

	if said = h.apply(t, 0, class); strings.Contains(said, "Puppetsrv_setting") {
		t.Errorf("said of nothing to do:\n%s", said)
	}
	wantFile(t, h.conf, after)
	if left, err := filepath.Glob(filepath.Dir(h.conf) + "/puppet.conf?*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	r := h.puppet(t, "config print", "--section", "agent", "server", "srv_domain", "use_srv_records", "http_connect_timeout", "runinterval")
	if want := "http_connect_timeout = 10\nruninterval = 1800\nserver = puppet-camaster.example.net\nsrv_domain = datacenter1.example.net\nuse_srv_records = true\n"; r.out != want {
		t.Errorf("puppet config print says\n%s%s\nwant\n%s", r.out, r.err, want)
	}
	r = h.puppet(t, "ssl", "bootstrap", "--waitforcert", "0", "--debug", "--certname", "h.example.net", "--keylength", "1024")
	wantLines(t, r.out+r.err, "_x-puppet-ca._tcp.datacenter1.example.net", "puppet-camaster.example.net")
}

// A host that is told its networks: the first run writes them, the second goes by them. Renumbered, it
// moves; out of all networks, it keeps what it has.
func TestNetworks(t *testing.T) {
	n := puppet(t)
	h := newHost(t, n, "h", "10.1.7.5")
	t.Parallel()
	manifest := with(`networks => { 'datacenter1' => ['10.1.0.0/16', '2001:db8:1::/48'], 'datacenter2' => ['10.1.7.0/24'], 'datacenter3' => [] }`)
	said := h.apply(t, 2, manifest)
	wantLines(t, said, "Warning: The datacenter of this host is not known: puppet.conf stays as it is. Write its name to /etc/puppetsrv/datacenter, or list a network of 10.1.7.5 in /etc/puppetsrv/networks.yaml. Networks that this run has written count from the next one on.")
	wantFile(t, h.etc+"/puppetsrv/networks.yaml", `# Written by Puppet, class puppetsrv::agent. The fact `+"`datacenter`"+` reads it.
"datacenter1":
  - "10.1.0.0/16"
  - "2001:db8:1::/48"
"datacenter2":
  - "10.1.7.0/24"
"datacenter3":
  []
`)
	if _, err := os.Stat(h.conf); err == nil {
		t.Error("a host without a datacenter was given a puppet.conf")
	}

	h.apply(t, 2, manifest)
	const want = "[agent]\nserver = puppet-camaster.example.net\nhttp_connect_timeout = 10s\nsrv_domain = datacenter2.example.net\nuse_srv_records = true\n"
	wantFile(t, h.conf, want)
	h.apply(t, 0, manifest)

	// None are not a mistake.
	said = h.apply(t, 2, with(`networks => {}`))
	if strings.Contains(said, "not known") {
		t.Errorf("the fact of this run comes from the file before it, but:\n%s", said)
	}
	said = h.apply(t, 2, with(`networks => {}`))
	wantLines(t, said, "Warning: The datacenter of this host is not known")
	if strings.Contains(said, "Facter: datacenter:") {
		t.Errorf("no networks are a bad file:\n%s", said)
	}
	wantFile(t, h.conf, want)
}

// What a host cannot be is said, and changes nothing; a bad file breaks no run; a class that is
// told wrongly gives no catalog.
func TestUnknown(t *testing.T) {
	n := puppet(t)
	h := newHost(t, n, "h", "10.9.0.5")
	t.Parallel()
	h.write(t, h.conf, before)
	h.write(t, "puppetsrv/datacenter", "data center\n")
	said := h.apply(t, 2, class)
	wantLines(t, said, `Warning: Facter: datacenter: /etc/puppetsrv/datacenter: "data center" is no datacenter's name: want one word`,
		"Warning: The datacenter of this host is not known")
	wantFile(t, h.conf, before)

	// A fact of the site's own, by Facter's usual way.
	h.write(t, "puppetsrv/datacenter", "datacenter1\n")
	h.write(t, "facter/facts.d/site.yaml", "datacenter: Berlin Mitte\n")
	said = h.apply(t, 2, class)
	wantLines(t, said, `Warning: The datacenter of this host cannot be "Berlin Mitte": puppet.conf stays as it is.`)
	wantFile(t, h.conf, before)

	said = h.apply(t, 1, with(`networks => { 'datacenter1' => '10.1.0.0/16' }`))
	wantLines(t, said, "parameter 'networks' entry 'datacenter1'")
	// A catalog, but of what cannot be: nothing after it is tried.
	said = h.apply(t, 4, with(`datacenter => 'datacenter1', conf => '/nowhere/puppet.conf'`))
	wantLines(t, said, "/nowhere")
	for _, name := range []string{"http_connect_timeout", "srv_domain", "use_srv_records"} {
		wantLines(t, said, "Puppetsrv_setting[agent/"+name+"]: Skipping because of failed dependencies")
	}
	wantFile(t, h.conf, before)
}

// What the types of the parameters take.
var typeCases = map[string]struct{ good, bad []string }{
	"Datacenter": {
		[]string{`'datacenter1'`, `'1'`, `'a-b'`, `'` + strings.Repeat("a", 63) + `'`},
		[]string{`''`, `'DC1'`, `'a.b'`, `'a b'`, `'-a'`, `'a-'`, `"a\n"`, `1`, `'` + strings.Repeat("a", 64) + `'`},
	},
	"Domain": {
		[]string{`'example.net'`, `'net'`, `'a_b.example.net'`, `'` + strings.Repeat("abc.", 63) + `d'`},
		[]string{`''`, `'example.net.'`, `'.net'`, `'a..b'`, `"a.b\n"`, `'a b.net'`, `'Example.net'`, `'` + strings.Repeat("abc.", 63) + `de'`},
	},
	"Duration": {
		[]string{`1`, `10`, `'10'`, `'10s'`, `'2m'`},
		[]string{`0`, `-1`, `'0s'`, `''`, `'10 s'`, `'s'`, `'1.5s'`, `"10s\n"`, `true`},
	},
	"Network": {
		[]string{`'10.1.0.0/16'`, `'0.0.0.0/0'`, `'192.0.2.1/32'`, `'2001:db8::/32'`, `'::/0'`, `'2001:DB8::1/128'`},
		[]string{`'10.1.0.0'`, `'10.1.0.0/33'`, `'10.1/16'`, `'::/129'`, `'::1'`, `'::/0/0'`, `"10.1.0.0/16\n"`, `'example.net/16'`},
	},
}

func TestTypes(t *testing.T) {
	n := puppet(t)
	h := newHost(t, n, "h", "10.9.0.5")
	t.Parallel()
	var manifest strings.Builder
	for name, c := range typeCases {
		for _, value := range c.good {
			fmt.Fprintf(&manifest, "unless %s =~ Puppetsrv::%s { notify { %q: } }\n", value, name, name+" does not take "+value)
		}
		for _, value := range c.bad {
			fmt.Fprintf(&manifest, "if %s =~ Puppetsrv::%s { notify { %q: } }\n", value, name, name+" takes "+value)
		}
	}
	if said := h.apply(t, 0, manifest.String()); strings.Contains(said, " take") {
		t.Error(said)
	}

	manifests, err := filepath.Glob("*/*.pp")
	if err != nil || len(manifests) < 5 {
		t.Fatalf("manifests: %v, %v", manifests, err)
	}
	if r := h.puppet(t, "parser validate", manifests...); r.code != 0 {
		t.Errorf("puppet parser validate: %s%s", r.out, r.err)
	}
}

// What the class has parameters for, and the files that puppet.conf may be.
func TestSettings(t *testing.T) {
	n := puppet(t)
	h := newHost(t, n, "h", "10.9.0.5")
	t.Parallel()
	file := func(name, content string) string {
		h.write(t, h.base+"/files/"+name, content)
		return h.base + "/files/" + name
	}
	crlf := file("crlf", "[agent]\r\nserver = puppet\r\n# end\r\n")
	twice := file("twice", "[agent]\nserver = a\nserver = b\n[main]\nx = y\n[agent]\nserver = c\n")
	bare := file("bare", "server = a\n# no end of line")
	target := file("target", "[main]\n")
	link := h.base + "/files/link"
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	latin := file("latin", "[agent]\n# \xe4\n")
	huge := file("huge", strings.Repeat("#", 1<<20+1))
	hidden := file("hidden", "[agent]\nserver = a\n")
	fresh := h.base + "/files/fresh"
	h.write(t, h.conf, "[main]\nlogdir = /l\n")
	manifest := `
Puppetsrv_setting { value => 'b.example.net' }
` + with(`datacenter => 'a', srv_domain => 'dc.a.example.org', http_connect_timeout => false, section => 'main'`)
	for _, c := range [][2]string{{"agent/server", crlf}, {"agent/report", twice}, {"main/server", bare}, {"agent/environment", link}, {"server/server", fresh},
		{"agent/splay", latin}, {"agent/noop", huge}, {"user/server", hidden}} {
		manifest += "\npuppetsrv_setting { '" + c[0] + "x': conf => '" + c[1] + "' }"
	}
	said := h.apply(t, 6, manifest)
	wantLines(t, said, latin+": this is not UTF-8", huge+": more than 1048576 bytes")
	wantFile(t, h.conf, "[main]\nlogdir = /l\nserver = puppet-camaster.example.net\nsrv_domain = dc.a.example.org\nuse_srv_records = true\n")
	wantFile(t, crlf, "[agent]\r\nserver = puppet\r\nserverx = b.example.net\r\n# end\r\n")
	wantFile(t, target, "[main]\n[agent]\nenvironmentx = b.example.net\n")
	if _, err := os.Readlink(link); err != nil {
		t.Errorf("the link is no longer one: %v", err)
	}
	wantFile(t, latin, "[agent]\n# \xe4\n")

	// Puppet takes the first of two.
	said = h.apply(t, 2, `puppetsrv_setting { 'agent/server': value => 'b', conf => '`+twice+`' } puppetsrv_setting { 'main/server': value => 'b', conf => '`+hidden+`' }`)
	wantLines(t, said, "[agent] in "+hidden+" has server too")
	if r := h.puppet(t, "config print", "--config", twice, "--section", "agent", "server"); r.out != "b\n" {
		t.Errorf("puppet config print says %q, want b", r.out)
	}

	for resource, want := range map[string]string{
		`'agents/server': value => 'a'`:   `"agents/server" is no SECTION/SETTING`,
		`'agent/server': `:                `value: there is none`,
		`'agent/server': value => "a\nb"`: `value "a\nb": want 1 to 1024 characters on one line`,
	} {
		wantLines(t, h.apply(t, 1, "puppetsrv_setting { "+resource+" }"), want)
	}
}

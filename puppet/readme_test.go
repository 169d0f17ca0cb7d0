//go:build linux

package puppet_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// block finds the code block of README.md with a language and a text in it.
func block(t *testing.T, language, text string) string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(readme), -1) {
		if strings.Contains(m[1], text) {
			return m[1]
		}
	}
	t.Fatalf("README.md has no block of %s with %s", language, text)
	return ""
}

// What README.md shows is so: the class without Hiera and with it, what becomes of puppet.conf, and that the
// commands for a new host write just that.
func TestReadme(t *testing.T) {
	n := puppet(t)
	h := newHost(t, n, "h", "10.1.0.5")
	t.Parallel()
	want := block(t, "ini", "use_srv_records")
	h.write(t, "puppetsrv/networks.yaml", block(t, "yaml", "datacenter1: ["))
	for line := range strings.Lines(block(t, "sh", "puppet config set")) {
		args := strings.Fields(line)
		if r := h.puppet(t, "config set", args[3:]...); args[0] != "puppet" || args[1] != "config" || args[2] != "set" || r.code != 0 {
			t.Fatalf("%s: %d %s%s", line, r.code, r.out, r.err)
		}
	}
	wantFile(t, h.conf, want)

	// Only the networks' file is still to be written as the class writes it, and the type's example done.
	manifest := block(t, "puppet", "class { 'puppetsrv::agent'")
	said := h.apply(t, 2, manifest+block(t, "puppet", "puppetsrv_setting {"))
	if strings.Contains(said, "Puppetsrv::Agent/Puppetsrv_setting") {
		t.Errorf("the commands are not what the class writes:\n%s", said)
	}
	wantFile(t, h.conf, want+"http_read_timeout = 5m\n")

	h.write(t, h.base+"/conf/hiera.yaml", "version: 5\ndefaults: { datadir: "+h.base+"/data, data_hash: yaml_data }\nhierarchy: [{ name: all, path: all.yaml }]\n")
	h.write(t, h.base+"/data/all.yaml", block(t, "yaml", "puppetsrv::agent::domain"))
	h.apply(t, 0, block(t, "puppet", "include puppetsrv::agent"))

	// The first run of a new host: nobody answers here, but it asks for what it is to ask.
	args := strings.Fields(block(t, "sh", "puppet agent --test"))
	if err := os.WriteFile(h.conf, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := h.puppet(t, "agent", append(args[2:], "--debug", "--waitforcert", "0", "--certname", "h.example.net", "--keylength", "1024")...)
	wantLines(t, r.out+r.err, "_x-puppet-ca._tcp.datacenter1.example.net", "https://puppet-camaster.example.net:8140")
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
)

// example is a Corefile in the documentation.
type example struct{ name, corefile string }

// examples are all Corefiles that the documentation shows, and Corefile.example.
func examples(t *testing.T) []example {
	t.Helper()
	var all []example
	for _, doc := range documents(t) {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?ms)^(?:```|~~~ ?)corefile\n(.*?)^(?:```|~~~)$").FindAllSubmatch(text, -1) {
			all = append(all, example{doc, string(m[1])})
		}
	}
	text, err := os.ReadFile("Corefile.example")
	if err != nil {
		t.Fatal(err)
	}
	// Also with what is commented out.
	clustered := regexp.MustCompile(`(?m)^        tls .*\n`).ReplaceAllString(string(text), "")
	clustered = regexp.MustCompile(`(?m)^        # ([a-z_]+ {2,})`).ReplaceAllString(clustered, "        $1")
	clustered = strings.NewReplacer("# admin_allow", "admin_allow").Replace(clustered)
	return append(all, example{"Corefile.example", string(text)}, example{"Corefile.example as a cluster", clustered})
}

// documents are the Markdown files of the project.
func documents(t *testing.T) []string {
	t.Helper()
	var docs []string
	for _, pattern := range []string{"*.md", "docs/*.md", "plugin/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, found...)
	}
	return docs
}

// Every Corefile that a reader may copy starts and answers; only what stands on
// a real host is replaced: the CA's file, the state and the ports.
func TestExamplesStart(t *testing.T) {
	m := newMasters(t)
	t.Chdir(root(t))
	port := dnsserver.Port
	dnsserver.Port = "0"
	t.Cleanup(func() { dnsserver.Port = port })
	all := examples(t)
	if len(all) < 5 {
		t.Fatalf("only %d examples were found", len(all))
	}
	for _, e := range all {
		t.Run(e.name, func(t *testing.T) {
			corefile := strings.NewReplacer(
				"/etc/puppetlabs/puppet/ssl/certs/ca.pem", filepath.Join(m.dir, "ca.pem"),
				"/etc/puppetlabs/puppet/ssl/", m.ssl("ns1.example.net")+"/",
				"/etc/puppetsrv/gossip.key", m.write("gossip.key", []byte("MDEyMzQ1Njc4OWFiY2RlZg==\n")),
				"/var/lib/puppetsrv", t.TempDir(),
				"/run/puppetsrv", m.dir,
				"192.0.2.1:7946", freePort(t).String(),
				"192.0.2.1:8153", freePort(t).String(),
				"to 192.0.2.53", "to 127.0.0.1",
				"join ns1.example.net ns2.example.net", "join 127.0.0.1:1",
				"localhost:9153", freePort(t).String(),
				"localhost:8181", freePort(t).String(),
				"puppetsrv {", "bind 127.0.0.1\npuppetsrv {",
				// Probes must not leave this machine.
				"        tls  ", "        probe off\n        tls  ",
			).Replace(e.corefile)
			s := serve(t, corefile)
			domain := "datacenter1"
			if strings.Contains(corefile, "paris") {
				domain = "paris"
			}
			if got := tiers(s.ask("_x-puppet._tcp."+domain+".example.net.", 33)); !strings.HasPrefix(got, "m1@10") {
				t.Errorf("lists %q", got)
			}
		})
	}
}

// The command by which operations.md has an operator look at a master as a probe
// does.
func TestOperationsCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("SKIPPED: no curl on this machine")
	}
	m := newMasters(t)
	doc, err := os.ReadFile(filepath.Join(root(t), "docs/operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^    curl (.*)$`).FindSubmatch(doc)
	if line == nil {
		t.Fatal("there is no curl line")
	}
	args := strings.Fields(strings.NewReplacer(
		"ca.pem", filepath.Join(m.dir, "ca.pem"),
		"ADDRESS:", m.stub[1].Addr().String(),
	).Replace(string(line[1])))
	out, err := exec.Command(curl, append([]string{"-sS"}, args...)...).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "running" {
		t.Errorf("curl %v: %v: %q", args, err, out)
	}
}

// Every property, metric and reason of the code stands in the plugin's README.
func TestTheManPageIsComplete(t *testing.T) {
	t.Chdir(root(t))
	page, err := os.ReadFile("plugin/puppetsrv/README.md")
	if err != nil {
		t.Fatal(err)
	}
	props, err := os.ReadFile("plugin/puppetsrv/properties.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, p := range regexp.MustCompile("(?m)^\t\"([a-z_]+)\": +\"([a-z_]+ [^\"]*)\",$").FindAllSubmatch(props, -1) {
		found++
		if !strings.Contains(string(page), "* `"+string(p[1])+"`") && !strings.Contains(string(page), "* `"+string(p[1])) {
			t.Errorf("property %s is not described", p[1])
		}
	}
	if found < 15 {
		t.Fatalf("only %d properties were found", found)
	}
	metrics, err := os.ReadFile("plugin/puppetsrv/metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	found = 0
	for _, p := range regexp.MustCompile(`(?:Name: |desc\()"([a-z_]+)"`).FindAllSubmatch(metrics, -1) {
		found++
		if !strings.Contains(string(page), "coredns_puppetsrv_"+string(p[1])+"{") {
			t.Errorf("metric %s is not described", p[1])
		}
	}
	if found < 11 {
		t.Fatalf("only %d metrics were found", found)
	}
}

// A test that a document names exists, and so does a file it links to.
func TestDocumentsNameWhatExists(t *testing.T) {
	t.Chdir(root(t))
	var tests []string
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
			tests = append(tests, string(m[1]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range documents(t) {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`(Test\\w+)`").FindAllSubmatch(text, -1) {
			if !slices.Contains(tests, string(m[1])) {
				t.Errorf("%s names %s, which is no test", doc, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([^):#]+)\)`).FindAllSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), string(m[1]))); err != nil {
				t.Errorf("%s links to %s: %v", doc, m[1], err)
			}
		}
		for _, m := range regexp.MustCompile("`make ([a-z-]+)").FindAllSubmatch(text, -1) {
			if !regexp.MustCompile(`(?m)^` + string(m[1]) + `:`).Match(makefile) {
				t.Errorf("%s tells of `make %s`, which is no target", doc, m[1])
			}
		}
	}
}

package puppetsrv_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// clustered is right, with everything that a node of a cluster needs.
const clustered = right + `tls cert.pem key.pem ca.pem
crl crl.pem
state state
location datacenter1
node ns1.example.net
gossip 127.0.0.1:7946 join ns2.example.net
members accept m*.example.net
admin unix:///run/puppetsrv/admin.sock https://127.0.0.1:8153
admin_allow read *
admin_allow write operator.example.net
admin_allow sign ns3.example.net
`

// clusterDir makes the working directory one with all the files of clustered.
func clusterDir(t *testing.T) {
	t.Helper()
	zoneDir(t, rightZone)
	ca, err := stub.NewCA("Puppet CA")
	if err != nil {
		t.Fatal(err)
	}
	other, err := stub.NewCA("another CA")
	if err != nil {
		t.Fatal(err)
	}
	id, err := ca.Issue(stub.IssueOptions{CommonName: "ns1.example.net"})
	if err != nil {
		t.Fatal(err)
	}
	crl, err := ca.CRL()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.CRL()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"ca.pem": ca.PEM(), "cert.pem": id.CertPEM, "key.pem": id.KeyPEM, "crl.pem": crl, "foreign.pem": foreign,
		"gossip.key": []byte("# ours\nMDEyMzQ1Njc4OWFiY2RlZg==\n"), "bad.key": []byte("MDEy\n"),
	} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClusterMistakesAreRefused(t *testing.T) {
	clusterDir(t)
	if err := check(block(clustered)); err != nil {
		t.Fatalf("what is right is refused: %v", err)
	}
	without := func(property string) string {
		var b strings.Builder
		for line := range strings.Lines(clustered) {
			if !strings.HasPrefix(line, property+" ") {
				b.WriteString(line)
			}
		}
		return b.String()
	}
	with := func(line string) string { // in place of the property's own lines
		return without(strings.Fields(line)[0]) + line + "\n"
	}
	for _, tc := range []struct {
		mistake, corefile string
		line              string // beginning of the line at fault
		want              []string
	}{
		{"node without name", with("node"), "node", []string{"write `node NAME`"}},
		{"node is no name", with("node ns_1..x"), "node", []string{"no host name"}},
		{"gossip without address", with("gossip"), "gossip", []string{"write `gossip BIND"}},
		{"gossip at a name", with("gossip ns1.example.net"), "gossip", []string{"is no address: write IP:PORT"}},
		{"gossip at port 0", with("gossip 127.0.0.1:0"), "gossip", []string{"is no address"}},
		{"gossip without key", with("gossip 192.0.2.1"), "gossip", []string{"192.0.2.1:7946 is no loopback address and there is no key", "head -c 32 /dev/urandom | base64", "`key FILE`"}},
		{"gossip on all addresses without key", with("gossip 0.0.0.0"), "gossip", []string{"there is no key"}},
		{"gossip with an unknown word", with("gossip 127.0.0.1 joins ns2"), "gossip", []string{`unknown word "joins"`}},
		{"gossip with a word twice", with("gossip 127.0.0.1 key gossip.key key gossip.key"), "gossip", []string{`"key" is given twice`}},
		{"gossip joins nobody", with("gossip 127.0.0.1 join key gossip.key"), "gossip", []string{`wrong arguments [] behind "join"`}},
		{"gossip joins at port 99999", with("gossip 127.0.0.1 join ns2:99999"), "gossip", []string{"from 1 to 65535"}},
		{"gossip joins what is no name", with("gossip 127.0.0.1 join ns2/x"), "gossip", []string{"no host name"}},
		{"gossip advertises everything", with("gossip 127.0.0.1 advertise 0.0.0.0"), "gossip", []string{"nobody can reach that"}},
		{"gossip with two profiles", with("gossip 127.0.0.1 profile lan wan"), "gossip", []string{"wrong arguments"}},
		{"gossip with an unknown profile", with("gossip 127.0.0.1 profile metro"), "gossip", []string{"metro", "lan"}},
		{"no key file", with("gossip 127.0.0.1 key absent"), "gossip", []string{"absent", "no such file"}},
		{"a key of 3 bytes", with("gossip 127.0.0.1 key bad.key"), "gossip", []string{"bad.key, line 1", "16, 24 or 32"}},
		{"members without accept", with("members m1"), "members", []string{"write `members accept PATTERN...`"}},
		{"members with no pattern", with("members accept [a"), "members", []string{"is no pattern"}},
		{"crl without file", with("crl"), "crl", []string{"write `crl FILE"}},
		{"crl absent", with("crl absent.pem"), "crl", []string{"absent.pem", "no such file"}},
		{"crl of another CA", with("crl foreign.pem"), "crl", []string{"foreign.pem", "not by a certificate of the CA bundle"}},
		{"crl is none", with("crl ca.pem"), "crl", []string{"no PEM CRL in it"}},
		{"no crl", without("crl"), "gossip", []string{"gossip needs `crl FILE`", "`crl off` does without"}},
		{"no state", without("state"), "gossip", []string{"gossip needs `state DIRECTORY`"}},
		{"no key of its own", with("tls ca.pem"), "gossip", []string{"gossip needs `tls CERT KEY CA`"}},
		{"admin without address", with("admin"), "admin", []string{"write `admin unix:///PATH|https://ADDR:PORT...`"}},
		{"admin by http", with("admin http://127.0.0.1:8153"), "admin", []string{"there is no API without TLS", "https://ADDR:8153"}},
		{"admin at a relative path", with("admin unix://admin.sock"), "admin", []string{"is no address"}},
		{"admin at a name", with("admin https://localhost:8153"), "admin", []string{"with an IP address"}},
		{"admin twice", with("admin unix:///a unix:///a"), "admin", []string{"given twice"}},
		{"everybody writes", with("admin_allow write *"), "admin_allow", []string{"* is for `read` alone"}},
		{"everybody signs", with("admin_allow sign *"), "admin_allow", []string{"* is for `read` alone", "who may sign"}},
		{"an unknown right", with("admin_allow delete a"), "admin_allow", []string{"write `admin_allow read|write|sign CERTNAME...`"}},
		{"a right for nobody", with("admin_allow read"), "admin_allow", []string{"write `admin_allow"}},
		{"a right for a pattern", with("admin_allow write *.example.net"), "admin_allow", []string{"no host name"}},
	} {
		t.Run(tc.mistake, func(t *testing.T) {
			corefile := block(tc.corefile)
			err := check(corefile)
			if err == nil {
				t.Fatal("accepted")
			}
			nth := 1
			if tc.line == "admin" {
				nth = 4 // behind three of admin_allow
			}
			for _, want := range append(tc.want, fmt.Sprintf("Corefile:%d ", lineOf(t, corefile, tc.line, nth))) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
		})
	}
	for name, corefile := range map[string]string{
		"off":                   with("crl off"),
		"the API alone":         without("gossip"),
		"gossip alone":          without("admin"),
		"a socket needs no crl": strings.Replace(strings.Replace(without("gossip"), " https://127.0.0.1:8153", "", 1), "crl crl.pem\n", "", 1),
		"all addresses, a key":  with("gossip 0.0.0.0 advertise 192.0.2.1 join ns2.example.net:7000 192.0.2.3 [2001:db8::1]:7946 key gossip.key profile wan"),
		"IPv6":                  with("gossip [::1]:7946"),
	} {
		if err := check(block(corefile)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

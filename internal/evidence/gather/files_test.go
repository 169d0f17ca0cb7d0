package gather_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

func TestCertificate(t *testing.T) {
	h := newHost(t)
	g := h.gatherer()
	c := g.Look(context.Background()).Certificate
	if diff := cmp.Diff([]string{"m1.example.net", "puppet.example.net"}, c.Names); diff != "" {
		t.Error(diff)
	}
	if !c.NotAfter.Equal(h.id.Certificate.Leaf.NotAfter) || c.Error != "" {
		t.Errorf("%+v", c)
	}
	// A renewed one is seen.
	end := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	h.write("cert.pem", h.issue(stub.IssueOptions{CommonName: certname, NotAfter: end}).CertPEM)
	if c := g.Look(context.Background()).Certificate; !c.NotAfter.Equal(end) || len(c.Names) != 1 {
		t.Errorf("%+v", c)
	}
	for _, data := range []string{"", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", strings.Repeat("x", 9<<20)} {
		h.write("cert.pem", []byte(data))
		if c := g.Look(context.Background()).Certificate; c.Error == "" || c.Names != nil {
			t.Errorf("%.20q: %+v", data, c)
		}
	}
}

func TestCRL(t *testing.T) {
	h := newHost(t)
	g := h.gatherer()
	first := g.Look(context.Background()).CRL
	if first.Error != "" || first.Number == "" || !first.NextUpdate.After(time.Now()) || first.ThisUpdate.After(time.Now()) {
		t.Fatalf("%+v", first)
	}
	h.ca.Revoke(h.id.Certificate.Leaf.SerialNumber)
	h.setCRL()
	if second := g.Look(context.Background()).CRL; second.Error != "" || second.Number == first.Number {
		t.Errorf("%+v after %+v", second, first)
	}
	other, err := stub.NewCA("another CA")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.CRL()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ data, want string }{
		{"", "no CRL in it"},
		{"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "x509: malformed crl"},
		{string(foreign), "the CRL of CN=another CA is not signed by the CA"},
	} {
		h.write("crl.pem", []byte(c.data))
		if crl := g.Look(context.Background()).CRL; !strings.Contains(crl.Error, c.want) {
			t.Errorf("%q, not %q", crl.Error, c.want)
		}
	}
	os.Remove(h.CRL)
	if crl := g.Look(context.Background()).CRL; !strings.Contains(crl.Error, "no such file") {
		t.Errorf("%+v", crl)
	}
	h.setCRL()
	if crl := g.Look(context.Background()).CRL; crl.Error != "" {
		t.Errorf("%+v", crl)
	}
}

package trust_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// Who puts back an older CRL, which the CA has signed too, gives back no right.
func TestAnOlderCRLIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := stub.NewCA("Puppet CA")
		if err != nil {
			t.Fatal(err)
		}
		id, err := ca.Issue(stub.IssueOptions{CommonName: "operator.example.net"})
		if err != nil {
			t.Fatal(err)
		}
		operator, err := trust.NewIdentity(id.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		write := func(name string, data []byte, err error) {
			t.Helper()
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		write("ca.pem", ca.PEM(), nil)
		old, err := ca.CRL()
		write("crl.pem", old, err)
		a, err := trust.Open(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "crl.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Verify(operator.Leaf, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
		ca.Revoke(operator.Leaf.SerialNumber)
		list, err := ca.CRL()
		write("crl.pem", list, err)
		if err := a.Verify(operator.Leaf, nil, time.Now()); err == nil {
			t.Fatal("a revoked certificate is good")
		}
		write("crl.pem", old, nil)
		if err := a.Verify(operator.Leaf, nil, time.Now()); err == nil {
			t.Error("with an older CRL a revoked certificate is good again")
		}
		if _, err := a.Revocation(); err == nil || !strings.Contains(err.Error(), "CRL number is 1 and 2 was known") {
			t.Errorf("err %v", err)
		}
		list, err = ca.CRL()
		write("crl.pem", list, err)
		if _, err := a.Revocation(); err != nil {
			t.Errorf("a newer one is not taken: %v", err)
		}
	})
}

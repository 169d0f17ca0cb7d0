package stub_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// newCADir is a CA on disk that has issued a certificate to m1, as its own host has it,
// and one to agent.
func newCADir(t *testing.T) (d *stub.CADir, ca *stub.CA, host, agent *stub.Identity) {
	t.Helper()
	ca = newCA(t)
	host = issue(t, ca, stub.IssueOptions{CommonName: name, CLIAuth: true})
	agent = issue(t, ca, stub.IssueOptions{CommonName: "agent.example.net"})
	d, err := stub.NewCADir(filepath.Join(t.TempDir(), "ca"), ca)
	if err != nil {
		t.Fatal(err)
	}
	return d, ca, host, agent
}

func read(t *testing.T, d *stub.CADir, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.Path(), file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func serial(t *testing.T, d *stub.CADir) int64 {
	t.Helper()
	n, err := strconv.ParseInt(read(t, d, "serial"), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func submit(t *testing.T, d *stub.CADir, name string, alt ...string) error {
	t.Helper()
	csr, _, err := stub.NewCSR(name, alt...)
	if err != nil {
		t.Fatal(err)
	}
	return d.Submit(name, csr)
}

func certificate(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM: %q", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewCADir(t *testing.T) {
	d, ca, host, agent := newCADir(t)
	modes := map[string]fs.FileMode{
		"ca_crt.pem": 0o644, "ca_key.pem": 0o640, "ca_pub.pem": 0o644, "ca_crl.pem": 0o644, "infra_crl.pem": 0o644,
		"infra_inventory.txt": 0o644, "infra_serials": 0o644, "inventory.txt": 0o644, "serial": 0o644, "signed": 0o750, "requests": 0o750,
	}
	entries, err := os.ReadDir(d.Path())
	if err != nil || len(entries) != len(modes) {
		t.Errorf("%d entries, %v; want %d", len(entries), err, len(modes))
	}
	for _, e := range entries {
		if fi, err := e.Info(); err != nil || fi.Mode().Perm() != modes[e.Name()] {
			t.Errorf("%s: %v, %v; want mode %v", e.Name(), fi.Mode().Perm(), err, modes[e.Name()])
		}
	}
	if got := read(t, d, "serial"); got != "0004" {
		t.Errorf("serial %q, want 0004: 1 is the CA, 2 and 3 are issued", got)
	}
	for i, want := range []string{"0x0001 ", "0x0002 ", "0x0003 "} {
		if line := strings.Split(read(t, d, "inventory.txt"), "\n")[i]; !strings.HasPrefix(line, want) || !strings.Contains(line, "UTC /CN=") {
			t.Errorf("line %d of the inventory: %q", i+1, line)
		}
	}
	if read(t, d, "ca_crt.pem") != string(ca.PEM()) || read(t, d, "signed/"+name+".pem") != string(host.CertPEM) || read(t, d, "signed/agent.example.net.pem") != string(agent.CertPEM) {
		t.Error("a certificate is not the one that was issued")
	}

	// The numbers are counted on the disk from now on.
	if _, err := ca.Issue(stub.IssueOptions{CommonName: "late.example.net"}); err == nil || !strings.Contains(err.Error(), d.Path()) {
		t.Errorf("Issue: %v", err)
	}
	if _, err := ca.CRL(); err == nil {
		t.Error("CRL signs one beside the disk's")
	}
	if _, err := stub.NewCADir(t.TempDir(), ca); err == nil {
		t.Error("a second cadir of one CA")
	}
	odd := newCA(t)
	issue(t, odd, stub.IssueOptions{CommonName: "../escape"})
	if _, err := stub.NewCADir(filepath.Join(t.TempDir(), "ca"), odd); err == nil {
		t.Error("a file outside of signed/")
	}
}

// What openssl says of the files is what openssl says of puppetserver's.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip(err)
	}
	d, _, _, _ := newCADir(t)
	if err := submit(t, d, "m9.example.net"); err != nil {
		t.Fatal(err)
	}
	if err := d.Revoke("agent.example.net"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"verify", "-CAfile", "ca_crt.pem", "-CRLfile", "ca_crl.pem", "-crl_check", "signed/m9.example.net.pem"}, "signed/m9.example.net.pem: OK"},
		{[]string{"verify", "-CAfile", "ca_crt.pem", "-CRLfile", "ca_crl.pem", "-crl_check", "signed/agent.example.net.pem"}, "certificate revoked"},
		{[]string{"crl", "-in", "ca_crl.pem", "-CAfile", "ca_crt.pem", "-noout"}, "verify OK"},
		{[]string{"crl", "-in", "infra_crl.pem", "-CAfile", "ca_crt.pem", "-noout"}, "verify OK"},
		{[]string{"pkey", "-in", "ca_key.pem", "-pubout"}, read(t, d, "ca_pub.pem")},
	} {
		cmd := exec.Command(openssl, test.args...)
		cmd.Dir = d.Path()
		if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), test.says) {
			t.Errorf("openssl %v: %q, want %q", test.args, out, test.says)
		}
	}
}

func TestSign(t *testing.T) {
	d, ca, _, _ := newCADir(t)
	if err := submit(t, d, "m9.example.net", "m9.datacenter1.example.net"); err != nil {
		t.Fatal(err)
	}
	c := certificate(t, read(t, d, "signed/m9.example.net.pem"))
	if _, err := c.Verify(x509.VerifyOptions{DNSName: "m9.datacenter1.example.net", Roots: ca.Pool()}); err != nil {
		t.Error(err)
	}
	if err := c.VerifyHostname("m9.example.net"); err != nil {
		t.Error(err)
	}
	if c.SerialNumber.Int64() != 4 || serial(t, d) != 5 {
		t.Errorf("serial number %v, next %d; want 4 and 5", c.SerialNumber, serial(t, d))
	}
	if want := fmt.Sprintf("0x0004 %s", c.NotBefore.UTC().Format("2006-01-02T15:04:05UTC")); !strings.Contains(read(t, d, "inventory.txt"), want) {
		t.Errorf("the inventory has no %q:\n%s", want, read(t, d, "inventory.txt"))
	}
	if left, _ := filepath.Glob(d.Path() + "/requests/*"); left != nil {
		t.Errorf("requests: %v", left)
	}
	if left, _ := filepath.Glob(d.Path() + "/*tmp"); left != nil {
		t.Errorf("temporary files: %v", left)
	}

	csr, _, err := stub.NewCSR("m8.example.net")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(csr)
	block.Bytes[len(block.Bytes)-1] ^= 1
	before := serial(t, d)
	for _, test := range []struct {
		name, certname string
		csr            []byte
		says           string
	}{
		{"signed already", "m9.example.net", mustCSR(t, "m9.example.net"), "already has a signed certificate"},
		{"another's name", "m7.example.net", csr, "does not match"},
		{"a broken signature", "m8.example.net", pem.EncodeToMemory(block), ""},
		{"no request", "m8.example.net", []byte("hello"), "no certificate request"},
		{"a path", "../m8", csr, "no certname"},
		{"capitals", "M8.example.net", mustCSR(t, "M8.example.net"), "no certname"},
	} {
		if err := d.Submit(test.certname, test.csr); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", test.name, err, test.says)
		}
	}
	if serial(t, d) != before {
		t.Error("a refused request has cost a serial number")
	}
}

func mustCSR(t *testing.T, name string) []byte {
	t.Helper()
	csr, _, err := stub.NewCSR(name)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// seals are the ways in which puppet cannot read a serial.
func seals(t *testing.T) map[string][2]func(path string) error {
	all := map[string][2]func(string) error{
		"mode 0000": {
			func(p string) error { return os.Chmod(p, 0) },
			func(p string) error { return os.Chmod(p, 0o644) },
		},
	}
	if os.Geteuid() == 0 {
		all["root's, mode 0600"] = [2]func(string) error{
			func(p string) error { return errors.Join(os.Chown(p, 0, 0), os.Chmod(p, 0o600)) },
			func(p string) error { return errors.Join(os.Chown(p, 7654, 7654), os.Chmod(p, 0o644)) },
		}
	} else {
		t.Log("not root: only the seal by mode is tried")
	}
	return all
}

// A sealed CA signs nothing and keeps the request; unsealed, it signs at once.
func TestSeal(t *testing.T) {
	for how, seal := range seals(t) {
		t.Run(how, func(t *testing.T) {
			d, _, _, _ := newCADir(t)
			if strings.HasPrefix(how, "root") { // as puppet's own
				err := filepath.WalkDir(d.Path(), func(p string, _ fs.DirEntry, err error) error { return errors.Join(err, os.Chown(p, 7654, 7654)) })
				if err != nil {
					t.Fatal(err)
				}
			}
			path, inventory := filepath.Join(d.Path(), "serial"), read(t, d, "inventory.txt")
			if err := seal[0](path); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := submit(t, d, fmt.Sprintf("m%d.example.net", rand.Int())); !errors.Is(err, fs.ErrPermission) {
					t.Errorf("sealed: %v", err)
				}
			}
			if err := submit(t, d, "m9.example.net"); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("sealed: %v", err)
			}
			if err := d.Sign("m9.example.net"); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("sealed: %v", err)
			}
			if signed, _ := filepath.Glob(d.Path() + "/signed/*"); len(signed) != 2 || read(t, d, "inventory.txt") != inventory {
				t.Errorf("it has signed %v", signed)
			}
			if err := submit(t, d, "m9.example.net"); err == nil || !strings.Contains(err.Error(), "already has a requested certificate") {
				t.Errorf("a second time: %v", err)
			}

			if err := seal[1](path); err != nil {
				t.Fatal(err)
			}
			if serial(t, d) != 4 {
				t.Errorf("serial %d, want 4: none was used", serial(t, d))
			}
			if err := submit(t, d, "m10.example.net"); err != nil {
				t.Errorf("unsealed: %v", err)
			}
			if err := d.Sign("m9.example.net"); err != nil {
				t.Errorf("unsealed, the request that waited: %v", err)
			}
			if n := certificate(t, read(t, d, "signed/m9.example.net.pem")).SerialNumber.Int64(); n != 5 {
				t.Errorf("serial number %d, want 5", n)
			}
			// What it wrote is the directory's owner's, or it would have sealed itself.
			for _, file := range []string{"serial", "inventory.txt", "signed/m9.example.net.pem"} {
				if got, want := uid(t, filepath.Join(d.Path(), file)), uid(t, d.Path()); got != want {
					t.Errorf("%s is of user %d, want %d", file, got, want)
				}
			}
		})
	}
}

func uid(t *testing.T, path string) uint32 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Uid
}

// No serial number is given twice, and they grow in the order of the inventory.
func TestConcurrentSigning(t *testing.T) {
	d, ca, host, agent := newCADir(t)
	m := startWith(t, ca, host, stub.WithCADir(d.Path()))
	c := client(t, ca, m)
	const workers, each = 8, 10
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprintf("agent%d-%d.example.net", w, i)
				csr, _, err := stub.NewCSR(name)
				if err != nil {
					t.Error(err)
					return
				}
				if code, body := do(t, c, "PUT", "/puppet-ca/v1/certificate_request/"+name, csr); code != 200 {
					t.Errorf("%s: %d %q", name, code, body)
				}
				if i%5 == 0 {
					if code, body := do(t, clientAs(t, ca, m, host), "PUT", "/puppet-ca/v1/certificate_status/agent.example.net", []byte(`{"desired_state":"revoked"}`)); code != 204 {
						t.Errorf("revoking: %d %q", code, body)
					}
				}
			}
		})
	}
	wg.Wait()
	var numbers []int64
	for line := range strings.Lines(read(t, d, "inventory.txt")) {
		n, err := strconv.ParseInt(strings.Fields(line)[0], 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	for i, n := range numbers {
		if n != int64(i+1) {
			t.Fatalf("the inventory has %v", numbers)
		}
	}
	if len(numbers) != 3+workers*each || serial(t, d) != int64(len(numbers)+1) {
		t.Errorf("%d in the inventory, next serial %d", len(numbers), serial(t, d))
	}
	files, _ := filepath.Glob(d.Path() + "/signed/*.pem")
	seen := make(map[string]bool)
	for _, f := range files {
		seen[certificate(t, read(t, d, "signed/"+filepath.Base(f))).SerialNumber.String()] = true
	}
	if len(files) != 2+workers*each || len(seen) != len(files) {
		t.Errorf("%d certificates, %d serial numbers", len(files), len(seen))
	}
	if list := crl(t, d); len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].SerialNumber.Cmp(agent.Certificate.Leaf.SerialNumber) != 0 {
		t.Errorf("revoked: %v", list.RevokedCertificateEntries)
	}
}

func crl(t *testing.T, d *stub.CADir) *x509.RevocationList {
	t.Helper()
	block, _ := pem.Decode([]byte(read(t, d, "ca_crl.pem")))
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Revoking grows the CRL's number, finds what only the inventory knows, and needs no
// serial: a sealed CA revokes, as the real one does.
func TestRevoke(t *testing.T) {
	d, _, host, agent := newCADir(t)
	first := crl(t, d).Number
	if err := d.Revoke("nobody.example.net"); err == nil {
		t.Error("nobody was revoked")
	}
	if err := d.Clean("agent.example.net"); err != nil {
		t.Fatal(err)
	}
	if err := d.Clean("agent.example.net"); err == nil {
		t.Error("cleaned twice")
	}
	if err := os.Chmod(filepath.Join(d.Path(), "serial"), 0); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"agent.example.net", name} {
		if err := d.Revoke(name); err != nil {
			t.Fatal(err)
		}
		if got, want := crl(t, d).Number, new(big.Int).Add(first, big.NewInt(int64(i+1))); got.Cmp(want) != 0 {
			t.Errorf("CRL number %v, want %v", got, want)
		}
	}
	var got []string
	for _, e := range crl(t, d).RevokedCertificateEntries {
		got = append(got, e.SerialNumber.String())
	}
	if want := []string{agent.Certificate.Leaf.SerialNumber.String(), host.Certificate.Leaf.SerialNumber.String()}; !slices.Equal(got, want) {
		t.Errorf("revoked %v, want %v", got, want)
	}
	if crl(t, d).NextUpdate.Before(time.Now()) {
		t.Error("the CRL has expired")
	}
}

// A damaged or missing serial is an error, and no number.
func TestDamagedSerial(t *testing.T) {
	for _, content := range []string{"", "zebra", "-1", "0", "7FFFFFFF", "FFFFFFFFFF"} {
		d, _, _, _ := newCADir(t)
		path := filepath.Join(d.Path(), "serial")
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := submit(t, d, "m9.example.net"); err == nil {
			t.Errorf("with serial %q it signs", content)
		}
		if got := read(t, d, "serial"); got != content {
			t.Errorf("serial %q has become %q", content, got)
		}
	}
	d, _, _, _ := newCADir(t)
	if err := os.Remove(filepath.Join(d.Path(), "serial")); err != nil {
		t.Fatal(err)
	}
	if err := submit(t, d, "m9.example.net"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a serial: %v", err)
	}
	if err := os.WriteFile(filepath.Join(d.Path(), "serial"), []byte("00fe\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.Sign("m9.example.net"); err != nil || read(t, d, "serial") != "00FF" {
		t.Errorf("after 00fe: %v, %q", err, read(t, d, "serial"))
	}
	if !bytes.Contains([]byte(read(t, d, "inventory.txt")), []byte("0x00FE ")) {
		t.Error("the inventory has no 0x00FE")
	}
}

func do(t *testing.T, c *http.Client, method, path string, body []byte) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, "https://"+name+path, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	response, err := c.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	var b bytes.Buffer
	_, _ = b.ReadFrom(response.Body)
	return response.StatusCode, b.String()
}

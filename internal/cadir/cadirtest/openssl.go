package cadirtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// OpenSSL runs the openssl program.
func OpenSSL(args ...string) (string, error) {
	cmd := exec.Command("openssl", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("openssl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), err
}

// Check says what is wrong with a CA on disk, as openssl and a few lines of shell would
// see it. It reads each certificate in signed/.
func Check(dir string) error {
	in := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	cert, err := OpenSSL("x509", "-in", in("ca_crt.pem"), "-noout", "-pubkey")
	if err != nil {
		return err
	}
	key, err := OpenSSL("pkey", "-in", in("ca_key.pem"), "-pubout")
	if err != nil {
		return err
	}
	if cert != key {
		return fmt.Errorf("the key is not that of the certificate")
	}
	if _, err := OpenSSL("crl", "-in", in("ca_crl.pem"), "-noout", "-CAfile", in("ca_crt.pem"), "-verify"); err != nil {
		return err
	}
	signed, err := filepath.Glob(in("signed", "*.pem"))
	if err != nil {
		return err
	}
	highest := uint64(0)
	if len(signed) > 0 {
		if _, err := OpenSSL(append([]string{"verify", "-CAfile", in("ca_crt.pem")}, signed...)...); err != nil {
			return err
		}
		var all bytes.Buffer
		for _, path := range signed {
			data, err := Read(path)
			if err != nil {
				return err
			}
			all.Write(data)
		}
		out, err := serials(all.Bytes())
		if err != nil {
			return err
		}
		highest = out
	}
	inventory, err := Read(in("inventory.txt"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(inventory)) {
		fields := strings.Fields(line)
		if len(fields) != 4 || !strings.HasSuffix(line, "\n") {
			return fmt.Errorf("inventory: %q", line)
		}
		n, err := strconv.ParseUint(strings.TrimPrefix(fields[0], "0x"), 16, 64)
		if err != nil {
			return err
		}
		highest = max(highest, n)
	}
	data, err := Read(in("serial"))
	if err != nil {
		return err
	}
	serial, err := strconv.ParseUint(strings.TrimSpace(string(data)), 16, 64)
	if err != nil {
		return err
	}
	if serial <= highest {
		return fmt.Errorf("the next serial is %X, and %X is issued", serial, highest)
	}
	return nil
}

// serials is the greatest serial of PEM certificates, by openssl's storeutl.
func serials(pems []byte) (highest uint64, err error) {
	f, err := os.CreateTemp("", "certificates")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(pems)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return 0, err
	}
	text, err := OpenSSL("storeutl", "-noout", "-text", "-certs", f.Name())
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "Serial Number: "); ok {
			n, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return 0, err
			}
			highest = max(highest, n)
		}
	}
	return highest, nil
}

// NewOpenSSL writes a CA into dir of which the openssl program made every key,
// certificate and list, with RSA keys as Puppet's, and certificates of names.
func NewOpenSSL(t testing.TB, dir string, intermediate bool, names ...string) {
	t.Helper()
	in := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	run := func(args ...string) {
		t.Helper()
		if _, err := OpenSSL(args...); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string) {
		t.Helper()
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	must(t, os.MkdirAll(in("signed"), 0o750))
	must(t, os.MkdirAll(in("requests"), 0o750))
	work := t.TempDir()
	at := func(name string) string { return filepath.Join(work, name) }
	write(at("ca.ext"), "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n")
	write(at("req.cnf"), "[req]\ndistinguished_name=dn\n[dn]\n")
	authority := func(name, file string, serial int, parent string) {
		run("genrsa", "-out", at(file+"_key.pem"), "2048")
		run("req", "-new", "-config", at("req.cnf"), "-key", at(file+"_key.pem"), "-subj", "/CN="+name, "-out", at(file+".csr"))
		sign := []string{"-signkey", at(file + "_key.pem")}
		if parent != "" {
			sign = []string{"-CA", at(parent + ".pem"), "-CAkey", at(parent + "_key.pem")}
		}
		run(append([]string{"x509", "-req", "-in", at(file + ".csr"), "-set_serial", strconv.Itoa(serial), "-days", "3650", "-sha256", "-extfile", at("ca.ext"), "-out", at(file + ".pem")}, sign...)...)
		write(at(file+".cnf"), fmt.Sprintf("[ca]\ndefault_ca=d\n[d]\ndatabase=%s\ncrlnumber=%s\ndefault_md=sha256\ndefault_crl_days=365\n", at(file+".txt"), at(file+".number")))
		write(at(file+".txt"), "")
		write(at(file+".number"), "01\n")
		run("ca", "-gencrl", "-config", at(file+".cnf"), "-cert", at(file+".pem"), "-keyfile", at(file+"_key.pem"), "-out", at(file+"_crl.pem"))
	}
	read := func(names ...string) string {
		var all strings.Builder
		for _, name := range names {
			data, err := Read(at(name))
			must(t, err)
			all.Write(data)
		}
		return all.String()
	}
	if intermediate {
		authority("Puppet Root CA", "root", 1, "")
		authority("Puppet CA: m1.example.net", "ca", 2, "root")
		write(in("ca_crt.pem"), read("ca.pem", "root.pem"))
		write(in("ca_crl.pem"), read("ca_crl.pem", "root_crl.pem"))
	} else {
		authority("Puppet CA: m1.example.net", "ca", 1, "")
		write(in("ca_crt.pem"), read("ca.pem"))
		write(in("ca_crl.pem"), read("ca_crl.pem"))
	}
	write(in("ca_key.pem"), read("ca_key.pem"))
	must(t, os.Chmod(in("ca_key.pem"), 0o640))
	run("pkey", "-in", in("ca_key.pem"), "-pubout", "-out", in("ca_pub.pem"))
	run("genrsa", "-out", at("leaf_key.pem"), "2048")
	var inventory strings.Builder
	for i, name := range names {
		run("req", "-new", "-config", at("req.cnf"), "-key", at("leaf_key.pem"), "-subj", "/CN="+name, "-out", at("leaf.csr"))
		run("x509", "-req", "-in", at("leaf.csr"), "-CA", at("ca.pem"), "-CAkey", at("ca_key.pem"), "-set_serial", strconv.Itoa(i+3), "-days", "1825", "-sha256", "-out", in("signed", name+".pem"))
		fmt.Fprintf(&inventory, "0x%04X 2026-01-01T00:00:00UTC 2031-01-01T00:00:00UTC /CN=%s\n", i+3, name)
	}
	write(in("inventory.txt"), inventory.String())
	write(in("serial"), fmt.Sprintf("%04X", len(names)+3))
}

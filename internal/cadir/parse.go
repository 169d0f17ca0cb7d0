package cadir

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// maxBundle bounds the certificates of ca_crt.pem, and so the CRLs of ca_crl.pem.
const maxBundle = 16

// bundle is ca_crt.pem: the CA's certificate and those above it, in any order.
type bundle struct {
	sum   Sum
	certs []*x509.Certificate
}

func parseBundle(data []byte, sum Sum) (*bundle, error) {
	b := &bundle{sum: sum}
	err := eachBlock(data, "CERTIFICATE", func(der []byte) error {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("certificate %d: %w", len(b.certs)+1, err)
		}
		if !c.IsCA {
			return fmt.Errorf("certificate %d, of %q, is no CA's", len(b.certs)+1, c.Subject.CommonName)
		}
		b.certs = append(b.certs, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, c := range b.certs {
		if !b.signed(c) {
			return nil, fmt.Errorf("the issuer of %q, %q, is not in it: the chain has to be whole, up to the root", c.Subject.CommonName, c.Issuer.CommonName)
		}
	}
	return b, nil
}

// signed reports whether one of the bundle issued c. Whether it has expired is not
// asked: a set is as good as on the day that it was written. SHA-1 counts, which old
// certificates in signed/ have.
func (b *bundle) signed(c *x509.Certificate) bool {
	for _, ca := range b.certs {
		if bytes.Equal(c.RawIssuer, ca.RawSubject) && ca.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			return true
		}
	}
	return false
}

// signer returns the certificate of a public key. puppetserver takes the same one.
func (b *bundle) signer(key crypto.PublicKey) *x509.Certificate {
	for _, c := range b.certs {
		if samePublic(c.PublicKey, key) {
			return c
		}
	}
	return nil
}

func (b *bundle) pairs(key crypto.PublicKey) error {
	if b.signer(key) == nil {
		return fmt.Errorf("it belongs to no certificate of %s", certFile)
	}
	return nil
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// eachBlock calls f for each PEM block of a type; at least one there has to be.
func eachBlock(data []byte, kind string, f func(der []byte) error) error {
	begun := bytes.Count(data, []byte("-----BEGIN "+kind+"-----"))
	for n := 0; ; {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			switch {
			case begun == 0:
				return fmt.Errorf("no PEM %s in it", kind)
			case n != begun: // Decode passes over what it cannot read
				return fmt.Errorf("%d of %d PEM blocks in it are cut off or damaged", begun-n, begun)
			}
			return nil
		}
		if block.Type != kind {
			continue
		}
		if n++; n > maxBundle {
			return fmt.Errorf("more than %d PEM blocks in it", maxBundle)
		}
		if err := f(block.Bytes); err != nil {
			return err
		}
	}
}

// parseKey returns the public half of a private key.
func parseKey(data []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM key in it")
	}
	if _, encrypted := block.Headers["DEK-Info"]; encrypted || block.Type == "ENCRYPTED PRIVATE KEY" {
		return nil, errors.New("the key is encrypted, and puppetserver cannot read it: decrypt it with `openssl pkey`")
	}
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM %q is no private key", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return k.Public(), nil
	case *ecdsa.PrivateKey:
		return k.Public(), nil
	case ed25519.PrivateKey:
		return k.Public(), nil
	}
	return nil, fmt.Errorf("a key of a kind that cannot sign: %T", key)
}

func parsePublic(data []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM key in it")
	}
	if block.Type == "RSA PUBLIC KEY" {
		return x509.ParsePKCS1PublicKey(block.Bytes)
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

// parseCertificate returns the first certificate of a file; openssl's text before it is
// passed over.
func parseCertificate(data []byte) (*x509.Certificate, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, errors.New("no PEM certificate in it")
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
}

// counted is a certificate's serial, or 0 if no counter of puppetserver's gave it.
func counted(n *big.Int) uint64 {
	if n.Sign() < 0 || !n.IsUint64() || n.Uint64() > MaxSerial {
		return 0
	}
	return n.Uint64()
}

// parseSerial reads the file of the next serial: hexadecimal, %04X by puppetserver.
func parseSerial(data []byte) (uint64, error) {
	s := strings.TrimSpace(string(data))
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%.32q is no hexadecimal number", s)
	}
	if n == 0 || n > MaxSerial {
		return 0, fmt.Errorf("%s is no serial: 1 to %X is", s, uint64(MaxSerial))
	}
	return n, nil
}

// formatSerial is what puppetserver writes.
func formatSerial(n uint64) []byte { return fmt.Appendf(nil, "%04X", n) }

// inventory is what is kept of inventory.txt.
type inventory struct {
	lines   int
	highest uint64
}

// parseInventory reads the list of all certificates ever issued. A line is
// "0x%04X NOT_BEFORE NOT_AFTER /SUBJECT". A last line that is not ended is one that is
// being written.
func parseInventory(data []byte) (inventory, error) {
	var inv inventory
	for n := 1; len(data) > 0; n++ {
		line, rest, ended := bytes.Cut(data, []byte("\n"))
		data = rest
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		serial, err := inventoryLine(line)
		if err != nil {
			if !ended {
				err = fmt.Errorf("%w; the file is cut off, or being written", err)
			}
			return inv, fmt.Errorf("line %d: %w", n, err)
		}
		inv.lines++
		inv.highest = max(inv.highest, serial)
	}
	return inv, nil
}

// inventoryLine returns a line's serial, 0 if it is no counter's.
func inventoryLine(line []byte) (uint64, error) {
	number, rest, _ := bytes.Cut(line, []byte(" "))
	digits, ok := bytes.CutPrefix(number, []byte("0x"))
	from, rest, _ := bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" "))
	to, subject, _ := bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" "))
	if !ok || len(digits) == 0 || !inventoryTime(from) || !inventoryTime(to) || !bytes.HasPrefix(bytes.TrimLeft(subject, " "), []byte("/")) {
		return 0, fmt.Errorf("%.80q is no entry (0xSERIAL NOT_BEFORE NOT_AFTER /SUBJECT)", line)
	}
	var serial uint64
	for _, c := range digits {
		var v byte
		switch {
		case '0' <= c && c <= '9':
			v = c - '0'
		case 'a' <= c && c <= 'f':
			v = c - 'a' + 10
		case 'A' <= c && c <= 'F':
			v = c - 'A' + 10
		default:
			return 0, fmt.Errorf("%.80q is no hexadecimal number", number)
		}
		serial = min(serial<<4|uint64(v), MaxSerial+1) // stays above once it is
	}
	if serial > MaxSerial {
		serial = 0
	}
	return serial, nil
}

// inventoryTime reports whether s looks like 2030-01-02T15:04:05UTC, with any zone.
func inventoryTime(s []byte) bool {
	const like = "0000-00-00T00:00:00"
	if len(s) < len(like) {
		return false
	}
	for i := range len(like) {
		if like[i] == '0' && (s[i] < '0' || s[i] > '9') || like[i] != '0' && s[i] != like[i] {
			return false
		}
	}
	return true
}

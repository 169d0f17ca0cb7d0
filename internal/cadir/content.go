package cadir

import (
	"crypto/sha256"
	"errors"
	"path"
	"strings"
)

// content is what is known of a file's bytes. It is shared by all that have the same
// ones, and never changed.
type content struct {
	size  int64
	sum   Sum
	data  []byte // nil for a certificate in signed/
	value any    // as parsed: *bundle, crypto.PublicKey, *crls, inventory, uint64, certificate, or nil
	err   error  // why it could not be
	by    Sum    // of a certificate in signed/: the bundle that it was verified by
}

// SumOf is the sum of a content.
func SumOf(data []byte) Sum { return sha256.Sum256(data) }

func sumOf(data []byte) Sum { return SumOf(data) }

// newTop parses a file that lies in the cadir itself.
func newTop(name string, data []byte) *content {
	c := &content{size: int64(len(data)), sum: sumOf(data), data: data}
	switch name {
	case certFile:
		c.value, c.err = parseBundle(data, c.sum)
	case keyFile:
		c.value, c.err = parseKey(data)
	case pubFile:
		c.value, c.err = parsePublic(data)
	case crlFile, infraCRLFile:
		c.value, c.err = parseCRLs(data)
	case inventoryFile:
		c.value, c.err = parseInventory(data)
	case serialFile:
		c.value, c.err = parseSerial(data)
	}
	return c
}

// newSigned parses a certificate in signed/ and verifies it.
func newSigned(p string, data []byte, by *bundle) *content {
	c := &content{size: int64(len(data)), sum: sumOf(data), by: by.sum}
	cert, err := parseCertificate(data)
	switch {
	case err != nil:
		c.err = err
	case !by.signed(cert):
		c.err = errors.New("it is not signed by this CA")
	case !strings.EqualFold(cert.Subject.CommonName, strings.TrimSuffix(path.Base(p), ".pem")):
		c.err = errors.New("it is the certificate of " + cert.Subject.CommonName)
	default:
		c.value = certificate{name: cert.Subject.CommonName, serial: counted(cert.SerialNumber)}
	}
	return c
}

// certificate is what is kept of one in signed/.
type certificate struct {
	name   string
	serial uint64 // 0: no counter's
}

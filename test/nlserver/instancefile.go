package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// setCredential puts the credential into the instance file. The file is opened
// once, read, truncated and written: the inode stays, and whoever looks in
// between sees an empty or a cut-off file. A file that is not there is never
// created.
func (s *session) setCredential() error {
	f := &s.faults
	file, err := os.OpenFile(s.instanceFile(), os.O_RDWR, 0)
	if err != nil {
		return &failure{iRcInstance, fmt.Sprintf("Unable to open '%s': %v.", s.instanceFile(), err)}
	}
	defer file.Close()
	before, err := io.ReadAll(file)
	if err != nil {
		return s.fileFailure(err)
	}
	spell := spelling(escapeValue)
	if f.OddSpelling {
		spell = oddSpelling
	}
	after, err := setIMSAttributes(before, s.credentialAttributes(), spell)
	if err == nil && f.Reformat {
		after, err = reformat(after)
	}
	if err != nil {
		return s.fileFailure(err)
	}

	if f.NoWrite {
		return nil
	}
	if err := file.Truncate(0); err != nil {
		return s.fileFailure(err)
	}
	if f.WriteDelay > 0 {
		s.wait("write_delay", time.Duration(f.WriteDelay))
	}
	if f.HangAfterTruncate {
		s.wait("hang_after_truncate", forever)
		return injected
	}
	switch {
	case f.WriteEmpty:
		after = nil
	case f.WriteHalf:
		after = after[:len(after)/2]
	case f.Garbage:
		after = append(after[:len(after)/3:len(after)/3], "\x00\xff<<serverconf & = '\n"...)
	}
	if _, err := file.WriteAt(after, 0); err != nil {
		return s.fileFailure(err)
	}
	if f.Die && (f.WriteEmpty || f.WriteHalf) {
		dieNow() // in the middle of its work, before it could announce success
	}
	if err := file.Close(); err != nil {
		return s.fileFailure(err)
	}
	if f.WriteHalf {
		return injected
	}
	return nil
}

func (s *session) fileFailure(err error) error {
	return &failure{iRcFile, fmt.Sprintf("Configuration file '%s': %v.", s.instanceFile(), err)}
}

// credentialAttributes are the attributes of <ims> that this run sets. Fields
// that the JWT form leaves out are left as they are.
func (s *session) credentialAttributes() []nameValue {
	c, f := &s.call, &s.faults
	values := []nameValue{
		{"authIMSTAClientId", c.field(fieldClient)},
		{"authIMSTAId", c.field(fieldTechnicalAccount)},
	}
	if secret := c.field(fieldSecret); secret != "" {
		values = append(values, nameValue{"authIMSTAClientSecret", encrypt(secret, f.Deterministic)})
	}
	if key := c.field(fieldPrivateKey); key != "" {
		values = append(values, nameValue{"authIMSTAPrivateKey", encrypt(key, f.Deterministic)})
	}
	// Where nlserver puts the organisation is not public.
	if f.OrgAttribute != "" {
		values = append(values, nameValue{f.OrgAttribute, c.field(fieldOrg)})
	}
	return values
}

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// setCredential puts the credential into the instance file. Unless other
// assumptions are in force, the file is opened once, read, truncated and
// written: the inode stays, and whoever looks in between sees an empty or a
// cut-off file. A file that is not there is never created.
func (s *session) setCredential() error {
	f := &s.faults
	file, err := os.OpenFile(s.instanceFile(), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return &answered{callWrongInstance}
	}
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
	if err == nil && (f.Reformat || s.assumed.Form == formReformatted) {
		after, err = reformat(after)
	}
	if err != nil {
		return s.fileFailure(err)
	}
	if f.NoWrite {
		return nil
	}
	if s.assumed.Write == writeRename {
		// The inode that was read stays, without its name.
		if file, err = s.createBeside(file); err != nil {
			return s.fileFailure(err)
		}
		defer os.Remove(file.Name())
		defer file.Close()
	} else if err := file.Truncate(0); err != nil {
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
	if err := s.write(file, after); err != nil {
		return s.fileFailure(err)
	}
	if s.assumed.Write == writeRename {
		if err := os.Rename(file.Name(), s.instanceFile()); err != nil {
			return s.fileFailure(err)
		}
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

// createBeside makes a file that is renamed over the instance's, with the mode of that.
func (s *session) createBeside(file *os.File) (*os.File, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	beside, err := os.CreateTemp(filepath.Dir(s.instanceFile()), filepath.Base(s.instanceFile())+".*.tmp")
	if err == nil {
		err = beside.Chmod(info.Mode().Perm())
	}
	return beside, err
}

// write writes at once, or in sixteen pieces, so far apart that others see each.
func (s *session) write(file *os.File, text []byte) error {
	size := max(len(text), 1)
	if s.assumed.Write == writePieces {
		size = len(text)/16 + 1
	}
	at := int64(0)
	for piece := range slices.Chunk(text, size) {
		if at > 0 {
			time.Sleep(5 * time.Millisecond)
		}
		if _, err := file.WriteAt(piece, at); err != nil {
			return err
		}
		at += int64(len(piece))
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
	same := f.Deterministic || s.assumed.Encryption == encryptionDeterministic
	var values []nameValue
	for _, a := range s.assumed.Attributes {
		value := map[string]string{
			"ims_org_id": c.field(fieldOrg), "client_id": c.field(fieldClient),
			"technical_account_id": c.field(fieldTechnicalAccount), "client_secret": c.field(fieldSecret), "other": "other",
		}[a.Holds]
		if secret := c.field(fieldSecret); a.Holds == "encrypted" && secret != "" {
			value = encrypt(secret, same)
		}
		if value != "" || a.Holds == "empty" {
			values = append(values, nameValue{a.Name, value})
		}
	}
	if key := c.field(fieldPrivateKey); key != "" {
		values = append(values, nameValue{"authIMSTAPrivateKey", encrypt(key, same)})
	}
	// Where nlserver puts the organisation is not public.
	if f.OrgAttribute != "" {
		values = slices.DeleteFunc(values, func(v nameValue) bool { return v.name == f.OrgAttribute })
		values = append(values, nameValue{f.OrgAttribute, c.field(fieldOrg)})
	}
	return values
}

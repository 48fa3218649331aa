package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
)

// testKey encrypts what the stand-in writes. It is published here on purpose:
// tests decrypt the file to learn which secret is on disk.
var testKey = sha256.Sum256([]byte("nlserver stand-in, test key, protects nothing"))

// encrypt returns "@" and base64, as Campaign's own files show. AES and the
// "@" are documented, the mode is not; this one is authenticated, so that a
// mangled value is noticed when it is decrypted.
func encrypt(plaintext string, deterministic bool) string {
	aead := testCipher()
	nonce := make([]byte, aead.NonceSize())
	if deterministic {
		mac := hmac.New(sha256.New, testKey[:])
		mac.Write([]byte(plaintext))
		copy(nonce, mac.Sum(nil))
	} else {
		rand.Read(nonce) // never fails since Go 1.24
	}
	return "@" + base64.StdEncoding.EncodeToString(aead.Seal(nonce, nonce, []byte(plaintext), nil))
}

func decrypt(value string) (string, error) {
	encoded, marked := strings.CutPrefix(value, "@")
	sealed, err := base64.StdEncoding.DecodeString(encoded)
	aead := testCipher()
	if !marked || err != nil || len(sealed) < aead.NonceSize() {
		return "", errors.New("not a value that this stand-in wrote")
	}
	plaintext, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], nil)
	if err != nil {
		return "", errors.New("not a value that this stand-in wrote, or it was changed since")
	}
	return string(plaintext), nil
}

func testCipher() cipher.AEAD {
	block, err := aes.NewCipher(testKey[:])
	if err != nil {
		panic(err) // the key has a fixed, valid length
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

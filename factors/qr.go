package factors

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"

	"github.com/boombuler/barcode"
	"github.com/boombuler/barcode/qr"
)

// QR draws the setup's URI for a device that scans: a PNG whose sides have at least so many pixels, without the light margin that the page has to leave
// around it. It is the secret, like the URI.
func (s Setup) QR(pixels int) ([]byte, error) {
	if s.URI == "" {
		return nil, errors.New("factors: there is nothing to scan")
	}
	code, err := qr.Encode(s.URI, qr.M, qr.Auto)
	if err != nil {
		return nil, errors.New("factors: the URI does not fit into a QR code") // the library's words could hold the secret
	}
	modules := code.Bounds().Dx()
	side := (max(pixels, modules) + modules - 1) / modules * modules // whole pixels for each module
	if code, err = barcode.Scale(code, side, side); err != nil {
		return nil, fmt.Errorf("factors: draw a QR code: %w", err)
	}
	var drawn bytes.Buffer
	if err := png.Encode(&drawn, code); err != nil {
		return nil, fmt.Errorf("factors: draw a QR code: %w", err)
	}
	return drawn.Bytes(), nil
}

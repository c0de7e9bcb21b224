// An empty ICU data package, in place of the 34 MB that Foundation brings: what languages, calendars and time zones are
// called. Nothing here asks ICU for any of it: our sources import FoundationEssentials alone, and Yams, which imports all of
// Foundation, uses its regular expressions, for which ICU has what it needs in its code. The layout is that of ICU's own
// stubdata.cpp, which exists for this use: ICU says "missing resource" then.
//
// Linked into statically linked programs that are handed on, by deploy/build-image and deploy/build-deb. Where the toolchain's
// ICU is of another version, the symbol is nobody's, and its data is linked in as before: the program is larger, no more.
#include <stdint.h>

extern const struct package __wrap_icudt76_dat;

const struct package {
    uint16_t headerSize;
    uint8_t magic[2];
    struct {
        uint16_t size;
        uint16_t reserved;
        uint8_t isBigEndian, charsetFamily, sizeOfUChar, reservedByte;
        uint8_t format[4], formatVersion[4], dataVersion[4];
    } info;
    uint8_t padding[8];
    // The table of contents: no entry.
    uint32_t count, reserved;
    uint8_t rest[8];
} __wrap_icudt76_dat __attribute__((aligned(16))) = {
    .headerSize = 32,
    .magic = {0xda, 0x27},
    .info =
        {
            .size = 20,
            .isBigEndian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__,
            .sizeOfUChar = 2,
            .format = {'T', 'o', 'C', 'P'},
            .formatVersion = {1},
        },
};

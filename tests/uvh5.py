"""A small UVH5 file with known content, and what a picture of it is made of."""

import struct
import zlib

import h5py
import numpy as np

PAIRS = [(0, 0), (0, 1), (0, 2), (1, 2)]
ENU = np.array([[0.0, 0.0, 0.0], [14.6, 0.0, 0.0], [0.0, -25.3, 0.0]])
LATITUDE, LONGITUDE = -30.7, 21.4
TIMES, CHANNELS = 3, 4


def to_earth(enu):
    """Return positions east, north and up of a place in the axes of the Earth."""
    phi, lam = np.radians([LATITUDE, LONGITUDE])
    east = np.array([-np.sin(lam), np.cos(lam), 0])
    north = np.array([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)])
    up = np.array([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
    return enu @ np.array([east, north, up])


def write_uvh5(path, *, compound=False, flagged=False):
    """Write visibilities whose amplitude is 1 + antenna 2, with rows last in time first."""
    times = np.repeat(2460000.5 + np.arange(TIMES)[::-1] / 24, len(PAIRS))
    one, two = np.array(PAIRS * TIMES).T
    data = np.repeat((1.0 + two) * 1j, CHANNELS).reshape(-1, CHANNELS, 1)
    with h5py.File(path, "w") as file:
        header = file.create_group("Header")
        header["ant_1_array"], header["ant_2_array"] = one, two
        header["antenna_numbers"] = np.arange(3)
        header["antenna_positions"] = to_earth(ENU)
        header["latitude"], header["longitude"] = LATITUDE, LONGITUDE
        header["time_array"] = times
        header["integration_time"] = np.full(times.size, 3600.0)
        header["freq_array"] = 1e8 + 1e6 * np.arange(CHANNELS)
        header["channel_width"] = np.full(CHANNELS, 1e6)
        header["polarization_array"] = np.array([-5])
        header["vis_units"] = np.bytes_("Jy")
        if compound:
            parts = np.zeros(data.shape, [("r", "<i4"), ("i", "<i4")])
            parts["r"], parts["i"] = data.real, data.imag
            data = parts
        file["Data/visdata"] = data
        file["Data/flags"] = np.full(data.shape, flagged)


def png_chunks(data):
    """Return the types of a PNG's chunks, checking each one's sum."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    found, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        (checksum,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        assert zlib.crc32(body) == checksum
        found.append(body[:4].decode())
        place += 12 + length
    return found

"""Contracts of public sets read invented rows under the sets' headings."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.contract import CONTRACTS, load_contract
from streaming.drafting.checking import check_sample
from streaming.drafting.sample import FileSample
from streaming.learning.labelled_files import read_labelled

FEATURES = ",".join(f"V{number}" for number in range(1, 29))
ROWS = {
    "paysim": (
        "step,type,amount,nameOrig,oldbalanceOrg,newbalanceOrig,nameDest,oldbalanceDest,newbalanceDest,"
        "isFraud,isFlaggedFraud\n"
        "3,CASH_OUT,250.75,C1,900.0,649.25,M7,0.0,0.0,0,0\n"
        "30,TRANSFER,12.5,C2,12.5,0.0,C1,5.0,0.0,1,0\n"
    ),
    "ibm-aml": (
        "Timestamp,From Bank,Account,To Bank,Account,Amount Received,Receiving Currency,Amount Paid,"
        "Payment Currency,Payment Format,Is Laundering\n"
        "2022/09/04 07:05,021,80A,033,80B,11.10,Yuan,11.10,Yuan,Cheque,0\n"
        "2022/09/05 17:45,033,80B,021,80A,7.00,US Dollar,7.00,US Dollar,ACH,1\n"
    ),
    "tabformer": (
        "User,Card,Year,Month,Day,Time,Amount,Use Chip,Merchant Name,Merchant City,Merchant State,Zip,MCC,"
        "Errors?,Is Fraud?\n"
        "3,1,2018,11,9,18:05,$17.25,Chip Transaction,-55,Here,TX,75001.0,5411,,No\n"
        "3,1,2018,11,10,08:15,$-1250.00,Swipe Transaction,77,There,TX,75002.0,5912,"
        '"Bad PIN,Technical Glitch",Yes\n'
    ),
    "sparkov": (
        ",trans_date_trans_time,cc_num,merchant,category,amt,first,last,gender,street,city,state,zip,lat,long,"
        "city_pop,job,dob,trans_num,unix_time,merch_lat,merch_long,is_fraud\n"
        '0,2020-02-03 10:11:12,5000000000000009,"fraud_Q, R",food,8.15,A,B,M,2 Way,Place,UT,84002,40.1,'
        '-111.5,302,"Baker, head",1970-01-02,z9,1580724672,40.3,-111.4,1\n'
    ),
    "ieee-cis": (
        "TransactionID,isFraud,TransactionDT,TransactionAmt,ProductCD,card1,card4,card6,addr1,P_emaildomain,"
        "R_emaildomain\n"
        "9000001,0,86500,59.0,W,11111,visa,debit,299.0,example.org,\n"
        "9000002,1,86600,77.95,C,22222,,credit,,,example.com\n"
    ),
    "banksim": (
        "step,customer,age,gender,zipcodeOri,merchant,zipMerchant,category,amount,fraud\n"
        "2,'C77','3','F','28007','M55','28007','es_food',14.25,0\n"
        "2,'C88','2','M','28007','M55','28007','es_food',840.10,1\n"
    ),
    "creditcardfraud": (
        f'"Time",{FEATURES},"Amount","Class"\n'
        f"0,{','.join(['-1.5'] * 28)},9.99,0\n"
        f"61.0,{','.join(['0.25'] * 28)},0,1\n"
    ),
}
EXPECTED: dict[str, dict[str, list[Any]]] = {
    "paysim": {"event_time": [datetime(2020, 1, 1, 3), datetime(2020, 1, 2, 6)], "sender": ["C1", "C2"]},
    "ibm-aml": {
        "sender": ["021|80A", "033|80B"],
        "receiver": ["033|80B", "021|80A"],
        "currency": ["CNY", "USD"],
    },
    "tabformer": {
        "event_time": [datetime(2018, 11, 9, 18, 5), datetime(2018, 11, 10, 8, 15)],
        "amount": [17.25, 1250.0],
        "direction": ["payment", "refund"],
        "card": ["3|1", "3|1"],
    },
    "sparkov": {"card": ["5000000000000009"], "merchant": ["fraud_Q, R"], "amount": [8.15]},
    "ieee-cis": {"card": ["11111", "22222"], "receiver_email_domain": [None, "example.com"]},
    "banksim": {
        "customer": ["C77", "C88"],
        "event_time": [datetime(2012, 11, 3)] * 2,
        "category": ["es_food"] * 2,
    },
    "creditcardfraud": {"card": ["-1.5", "0.25"], "v28": [-1.5, 0.25], "amount": [9.99, 0.0]},
}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_rows_of_a_public_set_are_payments_under_its_contract(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.csv"
    path.write_text(ROWS[name], encoding="utf-8")
    contract = load_contract(name)
    found = check_sample(FileSample(path, 100), contract)
    assert (found.rejected, found.faults) == ({}, {})
    rows = FileSample(path, 100).tried(contract).decoded.valid
    for column, values in EXPECTED[name].items():
        given = rows[column].to_pylist()
        assert given == [each.replace(tzinfo=UTC) if isinstance(each, datetime) else each for each in values]


@pytest.mark.parametrize("name", sorted(ROWS))
def test_labels_of_a_public_set_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.csv"
    path.write_text(ROWS[name], encoding="utf-8")
    labelled = read_labelled([path], load_contract(name))
    assert labelled.frauds[-1]
    assert labelled.known.all()


def test_every_shipped_contract_has_a_page() -> None:
    page = (Path(__file__).parents[4] / "docs" / "public-sets.md").read_text(encoding="utf-8")
    shipped = {path.stem for path in CONTRACTS.glob("*.yaml")} - {"simulator"}
    assert {name for name in shipped if f"`{name}`" not in page} == set()
